"""The verbs of an engine as callers write them, for whatever can carry them out.

Theory of operation. What a verb takes and returns is told by the class of the handler, the promise
or the signal it is given, and type checkers read that off overloads. They stand here once. An
:class:`perdure.Engine` carries each of them out in its own process, a :class:`perdure.Client` at a
server, in the methods of the same names with an underscore. Verbs that have no overloads are
written out in both.
"""

from perdure._verbs._beginning import Beginning
from perdure._verbs._completing import Completing
from perdure._verbs._listing import Listing
from perdure._verbs._operating import Act, Operating

__all__ = ["Act", "Beginning", "Completing", "Listing", "Operating"]
