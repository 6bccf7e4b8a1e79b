from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('runs', '0004_repeats_and_outcomes'),
    ]

    operations = [
        migrations.AddField(
            model_name='run',
            name='held',
            field=models.BooleanField(default=False, help_text='Paused by the portal, which lets it go on by itself'),
        ),
    ]
