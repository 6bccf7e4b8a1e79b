from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0006_quiet_limits")]

    operations = [
        migrations.AddField(
            model_name="run",
            name="forgotten",
            field=models.PositiveIntegerField(
                help_text="Units that were well, and well the next time, whose rows were removed; empty: not looked for yet",
                null=True,
            ),
        ),
    ]
