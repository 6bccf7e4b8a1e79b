"""What the accounts of staff add to the admin."""

from django.contrib.auth.models import User

from portal.models import Team
from portal.site.causes import CauseWords
from portal.site.extension_points import AdminExtension, ListEntry
from portal.site.limit_kinds import EVERYBODY, Sight
from portal.site.named import Named
from portal.site.navigation import Section
from portal.staff.accounts import RECOVERED
from portal.staff.roles import GRANT
from portal.staff.signing_in import GUESSING

EXTENSION = AdminExtension(
    dangerous=frozenset({GRANT, "portal.add_team", "portal.change_team", "staff.make_stafflink"}),
    sights={
        "audit.auditevent": Sight(subject="subject"),
        "auth.group": EVERYBODY,
        "auth.user": EVERYBODY,
        "portal.team": EVERYBODY,
    },
    lists=(ListEntry(section=Section.SETTINGS, title="Teams", model="portal.team"),),
    subjects={"staff": Named(User), "team": Named(Team, "group")},
    causes={
        GUESSING: CauseWords(title="Passwords are guessed"),
        RECOVERED: CauseWords(title="Account opened from outside its owner's sign-in"),
    },
    audit_words={
        "factor.added": "A member of staff added a factor",
        "factor.all_removed": "All factors of a member of staff were removed",
        "factor.codes_made": "New recovery codes were made for a member of staff",
        "factor.removed": "A member of staff removed a factor",
        "session.ended": "Sessions of a member of staff ended",
        "staff.changed": "The account of a member of staff was changed",
        "staff.created": "An account of a member of staff was made",
        "staff.link_made": "A one-time link was made for the account of a member of staff",
        "staff.link_told": "The owner of an account was told of a one-time link",
        "staff.link_told:failed": "The owner of an account could not be told of a one-time link",
        "staff.link_used": "A one-time link was used to set a password",
        "staff.proven_again": "A member of staff proved again who it is",
        "staff.recovery_begun": "A link to recover an account was made on the server",
        "staff.roles_changed": "The roles of a member of staff were changed",
        "staff.roles_taken_over": "The roles of a member of staff were taken over from the organisation's service",
        "staff.signed_in": "A member of staff signed in",
        "staff.signed_in:refused": "A sign-in was refused",
        "staff.teams_changed": "The teams of a member of staff were changed",
        "team.changed": "The limits of a team were changed",
        "team.created": "A team was made",
    },
)
