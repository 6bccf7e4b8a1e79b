import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("consent", "0029_registration_of_a_read")]

    operations = [
        migrations.AlterField(
            model_name="consentobservation",
            name="registration",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="consent.applicationregistration",
            ),
        ),
        migrations.AddIndex(
            model_name="consentobservation",
            index=models.Index(fields=["registration", "-observed_at", "-id"], name="read_registration"),
        ),
    ]
