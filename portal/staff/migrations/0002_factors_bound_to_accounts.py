import base64
import hashlib
import secrets

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.db import migrations

KEYS = {'totp': 'secret', 'recovery_codes': 'seed'}


def bind(apps, schema_editor):
    """Encrypt the keys of factors anew, bound to kind and account. The plain keys exist in this process only.

    What was kept under another INTEGRITY_KEY opened nothing before, and stays as it is.
    """
    integrity_key = settings.INTEGRITY_KEY.encode()
    old = Fernet(base64.urlsafe_b64encode(
        hashlib.blake2b(integrity_key, digest_size=32, person=b'staff factors').digest()
    ))
    new = AESGCM(hashlib.blake2b(integrity_key, digest_size=32, person=b'factors of staff').digest())
    rows = apps.get_model('mfa', 'Authenticator').objects.using(schema_editor.connection.alias)
    for row in rows.filter(type__in=KEYS).order_by('pk'):
        name = KEYS[row.type]
        try:
            plain = old.decrypt(row.data[name].encode())
        except InvalidToken:
            continue
        nonce = secrets.token_bytes(12)
        sealed = nonce + new.encrypt(nonce, plain, f'{row.type} {row.user_id}'.encode())
        row.data[name] = '2:' + base64.urlsafe_b64encode(sealed).decode()
        row.save(update_fields=['data'])


class Migration(migrations.Migration):
    """Before, a key opened in whichever row it stood."""

    dependencies = [
        ('mfa', '0003_authenticator_type_uniq'),
        ('staff', '0001_accounts_of_staff'),
    ]

    operations = [
        migrations.RunPython(bind, migrations.RunPython.noop),
    ]
