"""What the accounts of staff add to the admin."""

from django.contrib.auth.models import User

from portal.site.causes import CauseWords
from portal.site.extension_points import AdminExtension
from portal.site.named import Named
from portal.staff.accounts import RECOVERED
from portal.staff.signing_in import GUESSING

EXTENSION = AdminExtension(
    subjects={"staff": Named(User)},
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
        "staff.created": "An account of a member of staff was made",
        "staff.link_made": "A one-time link was made for the account of a member of staff",
        "staff.link_used": "A one-time link was used to set a password",
        "staff.proven_again": "A member of staff proved again who it is",
        "staff.recovery_begun": "A link to recover an account was made on the server",
        "staff.roles_taken_over": "The roles of a member of staff were taken over from the organisation's service",
        "staff.signed_in": "A member of staff signed in",
        "staff.signed_in:refused": "A sign-in was refused",
    },
)
