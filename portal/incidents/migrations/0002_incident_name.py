from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("incidents", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="incident",
            name="name",
            field=models.CharField(
                blank=True,
                default="",
                help_text="In words, as it was called then",
                max_length=300,
                verbose_name="what it concerns",
            ),
            preserve_default=False,
        ),
    ]
