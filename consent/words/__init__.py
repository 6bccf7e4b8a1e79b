"""The words of the pages that a partner's administrator reads. Texts only: no models, no requests.

Every refusal says what happened, who acts, and the exact next step (architecture section 7). Nothing here comes from
outside: whatever Microsoft or a browser sends only chooses one of these texts (S-23).
"""

from consent.words.checks import CHECK_WORDS, CheckState
from consent.words.permissions import (
    PERMISSION_WORDS,
    PermissionGroup,
    PermissionLine,
    PermissionWords,
    groups_of,
    permission_groups,
)
from consent.words.problems import PROBLEMS, Problem, ProblemWords, Who, problem_for_callback_error
from consent.words.results import RESULTS, Result, ResultWords, result_of

__all__ = [
    "CHECK_WORDS",
    "PERMISSION_WORDS",
    "PROBLEMS",
    "RESULTS",
    "CheckState",
    "PermissionGroup",
    "PermissionLine",
    "PermissionWords",
    "Problem",
    "ProblemWords",
    "Result",
    "ResultWords",
    "Who",
    "groups_of",
    "permission_groups",
    "problem_for_callback_error",
    "result_of",
]
