"""What is told to whom has not installed the extra."""

import subprocess
import sys

WITHOUT = "import sys; sys.modules['restate'] = None; import perdure.restate"


def test_the_import_without_the_sdk_names_the_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False
    )
    assert "ImportError: perdure.restate needs restate: pip install 'perdure[restate]'" in (
        done.stderr
    )
