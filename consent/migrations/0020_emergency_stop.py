import django.db.models.deletion
import django.db.models.functions.comparison
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('consent', '0019_lists_of_consents'),
        ('runs', '0005_emergency_stop'),
        ('tenants', '0010_customers_that_are_not_ready'),
    ]

    operations = [
        migrations.CreateModel(
            name='Containment',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('reason', models.CharField(max_length=300)),
                ('state', models.CharField(choices=[('on', 'On: no token is used'), ('resuming', 'Being resumed in waves'), ('over', 'Over')], default='on', max_length=8)),
                ('began_at', models.DateTimeField(auto_now_add=True)),
                ('began_by', models.CharField(max_length=150)),
                ('resume_asked_at', models.DateTimeField(null=True)),
                ('resume_asked_by', models.CharField(blank=True, help_text='The first of the two persons', max_length=150)),
                ('resumed_at', models.DateTimeField(null=True)),
                ('resumed_by', models.CharField(blank=True, help_text='The second person, who confirmed it', max_length=150)),
                ('released_to', models.BigIntegerField(help_text='Partners with a key up to this one are released', null=True)),
                ('wave', models.PositiveSmallIntegerField(default=0, help_text='Number of the latest wave, from 1; 0 before it')),
                ('halted', models.CharField(blank=True, help_text='Why no further wave is released', max_length=300)),
                ('over_at', models.DateTimeField(null=True)),
                ('partner', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='containments', to='tenants.partnertenant')),
                ('registration', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='containments', to='consent.applicationregistration')),
                ('run', models.ForeignKey(help_text='The check of the latest wave', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='runs.run')),
            ],
            options={
                'ordering': ['-pk'],
                'permissions': [('begin_containment', 'Can stop all use of tokens at once'), ('resume_containment', 'Can ask for or confirm the end of an emergency stop')],
                'default_permissions': ('view',),
                'constraints': [models.CheckConstraint(condition=models.Q(('registration__isnull', True), ('partner__isnull', True), _connector='OR'), name='containment_of_one_thing'), models.UniqueConstraint(django.db.models.functions.comparison.Coalesce('registration', 0), django.db.models.functions.comparison.Coalesce('partner', 0), condition=models.Q(('state', 'over'), _negated=True), name='containment_open_once'), models.CheckConstraint(condition=models.Q(models.Q(('released_to__isnull', True), ('resumed_at__isnull', True), ('state', 'on')), models.Q(models.Q(('state', 'on'), _negated=True), ('resumed_at__isnull', False)), _connector='OR'), name='containment_resumed_has_time'), models.CheckConstraint(condition=models.Q(models.Q(('over_at__isnull', False), ('state', 'over')), models.Q(models.Q(('state', 'over'), _negated=True), ('over_at__isnull', True)), _connector='OR'), name='containment_over_has_time')],
            },
        ),
    ]
