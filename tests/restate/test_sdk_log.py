"""What the log of ``serve --restate`` has of attempts that fail."""

from __future__ import annotations

import logging

import pytest

from perdure.cli._sdk_log import shorten_failures

logger = logging.getLogger("restate.server_context")


def logged(text: str, caplog: pytest.LogCaptureFixture) -> str:
    before = list(logger.filters)
    shorten_failures()
    try:
        logger.error("Exception in do_progress", exc_info=RuntimeError(text))
    finally:
        logger.filters = before
    return caplog.text


def test_a_failed_step_is_a_line_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    text = "(500) ValueError: boom\nStacktrace: Traceback …\n  File …\n\nRelated command: run [pay]"
    assert logged(text, caplog).endswith("an attempt failed: ValueError: boom, in run [pay]\n")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_code_that_does_not_fit_the_journal_is_told_with_a_remedy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shown = logged("(570) Found a mismatch: run 'a' != run 'b'", caplog)
    assert "run 'a' != run 'b'" in shown
    assert "at an address of its own" in shown


def test_what_else_it_logs_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    before = list(logger.filters)
    shorten_failures()
    try:
        logger.error("something else", exc_info=RuntimeError("with frames"))
    finally:
        logger.filters = before
    assert "RuntimeError: with frames" in caplog.text
