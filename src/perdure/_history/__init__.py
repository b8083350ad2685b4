"""Recorded journals, apart from the store they come from.

Theory of operation. A :class:`History` holds invocations with all that a replay of them needs: what
was asked, and the journal. An engine, a view or a server makes one (:func:`read_invocation`); as
text (:mod:`._writing`, :mod:`._reading`) it is a file that people read, compare and keep beside the
tests. docs/reference/history-format.md is the contract of that text.
"""

from perdure._history._exporting import read_invocation
from perdure._history._recorded import History, RecordedInvocation

__all__ = ["History", "RecordedInvocation", "read_invocation"]
