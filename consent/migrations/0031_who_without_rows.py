from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("consent", "0030_reads_by_registration")]

    operations = [
        migrations.RemoveIndex(model_name="customerconsent", name="customer_consent_not_well"),
        migrations.AddIndex(
            model_name="customerconsent",
            index=models.Index(
                fields=[
                    "owner",
                    "customer",
                    "registration",
                    "verified_at",
                    "tried_at",
                    "unread_since",
                    "unread_owner",
                    "failed_at",
                    "failed_owner",
                ],
                condition=Q(owner__gt="") | Q(unread_since__isnull=False) | Q(failed_at__isnull=False),
                name="customer_consent_who",
            ),
        ),
    ]
