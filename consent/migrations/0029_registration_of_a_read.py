import django.db.models.deletion
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps
from django.db.models import F, OuterRef, Subquery, Value
from django.db.models.functions import Replace


def fill(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Give each read the registration of its consent."""
    consents = apps.get_model("consent", "CustomerConsent")._default_manager.using(schema_editor.connection.alias)
    reads = apps.get_model("consent", "ConsentObservation")._default_manager.using(schema_editor.connection.alias)
    of_consent = consents.filter(pk=OuterRef("consent_id")).values("registration_id")
    reads.update(registration_id=Subquery(of_consent))


def rename(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Let what people keep for the list, filters and chosen columns, name the registration where it stands now."""
    saved = apps.get_model("portal_site", "SavedFilter")._default_manager.using(schema_editor.connection.alias)
    named = Replace(F("query"), Value("consent__registration__"), Value("registration__"))
    saved.filter(list_name="consent.consentobservation").update(query=named)
    chosen = apps.get_model("portal_site", "ChosenColumns")._default_manager.using(schema_editor.connection.alias)
    for row in chosen.filter(list_name="consent.consentobservation"):
        row.columns = ["shown_registration" if name == "registration" else name for name in row.columns]
        row.save()


class Migration(migrations.Migration):
    dependencies = [
        ("consent", "0028_consents_of_a_registration"),
        ("portal_site", "0002_export_permission"),
    ]

    operations = [
        migrations.AddField(
            model_name="consentobservation",
            name="registration",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="consent.applicationregistration",
            ),
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.RunPython(rename, migrations.RunPython.noop),
    ]
