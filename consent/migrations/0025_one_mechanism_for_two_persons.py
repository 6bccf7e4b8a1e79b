from django.db import migrations


class Migration(migrations.Migration):
    """Requests to resume stand among the requests of all kinds. Emergency stops stay as they are, with all names."""

    dependencies = [
        ('consent', '0024_links_that_wait'),
    ]

    operations = [
        migrations.RemoveField(
            model_name='containment',
            name='resume_asked_at',
        ),
    ]
