from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps
from django.db.models import Q

_FOLLOWED = ["invited", "connected", "attention"]  # states that were written after links and consents


def keep_decisions(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Keep what staff decided; the rest is worked out from now on."""
    apps.get_model("tenants", "PartnerTenant").objects.filter(switch__in=_FOLLOWED).update(switch="on")


def forget(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Give every partner that is on the first of the older states; its next check writes the right one."""
    apps.get_model("tenants", "PartnerTenant").objects.filter(switch="on").update(switch="invited")


class Migration(migrations.Migration):
    dependencies = [("tenants", "0001_initial")]

    operations = [
        migrations.RemoveConstraint(model_name="partnertenant", name="partner_state_known"),
        migrations.RenameField(model_name="partnertenant", old_name="state", new_name="switch"),
        migrations.RunPython(keep_decisions, forget),
        migrations.AlterField(
            model_name="partnertenant",
            name="switch",
            field=models.CharField(
                choices=[("on", "On"), ("disabled", "Disabled"), ("offboarded", "Offboarded")],
                db_index=True,
                default="on",
                editable=False,
                max_length=12,
            ),
        ),
        migrations.AddConstraint(
            model_name="partnertenant",
            constraint=models.CheckConstraint(
                condition=Q(switch__in=["on", "disabled", "offboarded"]), name="partner_switch_known"
            ),
        ),
    ]
