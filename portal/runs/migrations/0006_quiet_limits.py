from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0005_emergency_stop")]

    operations = [
        migrations.AddField(
            model_name="ratebucket",
            name="held_for",
            field=models.FloatField(default=0, help_text="Seconds that it then asked to wait"),
        ),
    ]
