from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("consent", "0002_granted_scopes_of_all_resources")]

    operations = [
        migrations.AlterField(
            model_name="campaignpartner",
            name="last_send_problem",
            field=models.CharField(
                "problem with the mail",
                blank=True,
                choices=[
                    ("no_address", "The partner has no contact address, or one that is none."),
                    ("no_link", "No link can be made: partner or application registration does not allow it."),
                    ("refused", "The mail server refused this message or its address."),
                    ("unavailable", "The mail server went away before it took the message."),
                    ("printed", "Printed, not sent: this portal has no mail server."),
                ],
                max_length=11,
            ),
        ),
    ]
