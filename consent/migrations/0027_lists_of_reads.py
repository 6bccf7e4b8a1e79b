from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('consent', '0026_customers_that_were_never_read'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='customerconsent',
            index=models.Index(fields=['changed_by', 'customer'], name='customer_consent_changed'),
        ),
        migrations.AddIndex(
            model_name='customerconsent',
            index=models.Index(condition=models.Q(models.Q(('changed_by', 'outside'), models.Q(('state', 'partial'), ('state', 'differs'), models.Q(('state', 'granted'), ('requested_at__isnull', False), ('requested_hash', '')), models.Q(('state', 'absent'), models.Q(('requested_at__isnull', False), ('requested_hash', ''), _negated=True)), _connector='OR')), ('state', 'partial'), ('state', 'differs'), models.Q(('state', 'absent'), models.Q(('requested_hash', ''), _negated=True)), models.Q(('requested_at__isnull', False), ('requested_hash', ''), models.Q(('state', 'absent'), _negated=True)), ('unread_since__isnull', False), ('failed_at__isnull', False), _connector='OR'), fields=['customer'], name='customer_consent_finding'),
        ),
        migrations.AddIndex(
            model_name='consentobservation',
            index=models.Index(fields=['state', '-observed_at', '-id'], name='read_state'),
        ),
        migrations.AddIndex(
            model_name='consentobservation',
            index=models.Index(fields=['changed_by', '-observed_at', '-id'], name='read_changed_by'),
        ),
        migrations.AddIndex(
            model_name='consentobservation',
            index=models.Index(fields=['evidence', '-observed_at', '-id'], name='read_evidence'),
        ),
    ]
