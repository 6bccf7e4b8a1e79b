from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("consent", "0003_mails_that_were_printed")]

    operations = [
        migrations.RemoveConstraint(model_name="partnerconsent", name="consent_connected_has_mfa"),
        migrations.AddConstraint(
            model_name="partnerconsent",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("state", "connected"), _negated=True),
                    models.Q(("mfa", "missing"), _negated=True),
                    _connector="OR",
                ),
                name="consent_connected_lacks_no_mfa",
            ),
        ),
    ]
