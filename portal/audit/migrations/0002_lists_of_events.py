import django.db.models.fields.json
from django.db import migrations, models

from portal.audit import triggers


class Migration(migrations.Migration):

    dependencies = [
        ('audit', '0001_initial'),
    ]

    operations = [
        # SQLite makes the table anew for the column, and its triggers go with the old one.
        migrations.RunPython(triggers.drop, triggers.create),
        migrations.AddField(
            model_name='auditevent',
            name='partner_key',
            field=models.GeneratedField(db_persist=True, expression=django.db.models.fields.json.KT('subject__partner'), output_field=models.TextField(null=True)),
        ),
        migrations.AlterField(
            model_name='auditevent',
            name='action',
            field=models.CharField(max_length=60),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['partner_key', '-sequence'], name='audit_of_partner'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['action', '-sequence'], name='audit_action'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['actor_kind', '-sequence'], name='audit_actor_kind'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['outcome', '-sequence'], name='audit_outcome'),
        ),
        migrations.RunPython(triggers.create, triggers.drop),
    ]
