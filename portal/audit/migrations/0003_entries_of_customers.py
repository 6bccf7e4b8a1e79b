import django.db.models.fields.json
from django.db import migrations, models

from portal.audit import triggers


class Migration(migrations.Migration):

    dependencies = [
        ('audit', '0002_lists_of_events'),
    ]

    operations = [
        # SQLite makes the table anew for the column. PostgreSQL's triggers run from now on also in a session that calls
        # itself a replica.
        migrations.RunPython(triggers.drop, triggers.create),
        migrations.AddField(
            model_name='auditevent',
            name='customer_key',
            field=models.GeneratedField(db_persist=True, expression=django.db.models.fields.json.KT('subject__customer'), output_field=models.TextField(null=True)),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(condition=models.Q(('customer_key__isnull', False)), fields=['customer_key', '-sequence'], name='audit_of_customer'),
        ),
        migrations.AlterField(
            model_name='auditevent',
            name='correlation_id',
            field=models.CharField(blank=True, max_length=36),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['correlation_id'], name='audit_correlation'),
        ),
        migrations.RunPython(triggers.create, triggers.drop),
    ]
