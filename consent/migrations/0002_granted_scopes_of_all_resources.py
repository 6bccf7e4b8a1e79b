from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

_PARTNER_CENTER = "fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd"
_SIGN_IN_SCOPES = {"openid", "profile", "email", "offline_access"}


def by_resource(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Put what the code's redemption for Partner Center named under that resource; of Graph nothing was kept."""
    consents = apps.get_model("consent", "PartnerConsent").objects.using(schema_editor.connection.alias)
    for consent in consents.only("pk", "granted_scopes").iterator(chunk_size=1000):
        scopes = sorted(set(consent.granted_scopes) - _SIGN_IN_SCOPES)
        consents.filter(pk=consent.pk).update(granted_scopes={_PARTNER_CENTER: scopes} if scopes else {})


class Migration(migrations.Migration):
    dependencies = [("consent", "0001_initial")]

    operations = [
        migrations.RemoveField(model_name="applicationregistration", name="permission_set_version"),
        migrations.RemoveField(model_name="partnerconsent", name="permission_set_version"),
        migrations.RemoveField(model_name="waitingtoken", name="granted_scopes"),
        migrations.AlterField(
            model_name="partnerconsent",
            name="granted_scopes",
            field=models.JSONField(
                default=dict,
                help_text="Delegated permissions that the sign-in proved, by the application id of the resource",
            ),
        ),
        migrations.RunPython(by_resource),
    ]
