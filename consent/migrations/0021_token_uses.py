import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('consent', '0020_emergency_stop'),
        ('tenants', '0010_customers_that_are_not_ready'),
    ]

    operations = [
        migrations.AddField(
            model_name='containment',
            name='deactivated',
            field=models.JSONField(default=list, help_text='Registrations that we deactivated at Microsoft, by their keys'),
        ),
        migrations.CreateModel(
            name='TokenUse',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField(help_text='When it was given out; of several the first time')),
                ('last_at', models.DateTimeField(help_text='Of several the last time')),
                ('audience', models.CharField(help_text='The service, or the application id of another resource', max_length=36)),
                ('purpose', models.CharField(choices=[('program', 'Access token for a program'), ('sign_in', 'Sign-in of the partner'), ('approval', 'Approval of another account'), ('credential', 'Proof of a credential'), ('doctor', 'Doctor'), ('repair', 'Repair after a restore'), ('token_check', 'Token check'), ('customer_sync', 'Customer sync'), ('consent_verify', 'Check of customer consents'), ('apply_plan', 'Plan, push or removal'), ('import_tokens', 'Import of refresh tokens')], max_length=14)),
                ('actor_kind', models.CharField(choices=[('staff', 'Staff'), ('command', 'Command'), ('link', 'Consent link'), ('system', 'System')], max_length=7)),
                ('actor', models.CharField(max_length=150)),
                ('address', models.GenericIPAddressField(null=True)),
                ('run', models.BigIntegerField(help_text='Number of the run; runs are removed earlier than this', null=True)),
                ('correlation_id', models.CharField(blank=True, help_text="A run's units have their own", max_length=36)),
                ('issued', models.PositiveIntegerField(default=0, help_text='So many were issued by Microsoft')),
                ('cached', models.PositiveIntegerField(default=0, help_text='So many times one from memory was given out')),
                ('of_customers', models.PositiveIntegerField(default=0, help_text='So many of both were for tenants of customers')),
                ('customer', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.customertenant')),
                ('partner', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.partnertenant')),
                ('registration', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='consent.applicationregistration')),
            ],
            options={
                'verbose_name': 'token use',
                'ordering': ['-pk'],
                'default_permissions': ('view',),
                'indexes': [models.Index(fields=['partner', 'last_at'], name='use_of_partner'), models.Index(fields=['last_at'], name='use_when')],
                'constraints': [models.CheckConstraint(condition=models.Q(('last_at__gte', models.F('at'))), name='use_ends_after_it_begins'), models.CheckConstraint(condition=models.Q(('issued__gt', 0), ('cached__gt', 0), _connector='OR'), name='use_is_one_at_least')],
            },
        ),
    ]
