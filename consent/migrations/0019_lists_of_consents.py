from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('consent', '0018_moving_in'),
        ('tenants', '0010_customers_that_are_not_ready'),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name='customerconsent',
            name='customer_consent_state',
        ),
        migrations.AddIndex(
            model_name='customerconsent',
            index=models.Index(fields=['state', 'registration', 'customer'], name='customer_consent_state'),
        ),
        migrations.AddIndex(
            model_name='customerconsent',
            index=models.Index(fields=['verified_at', 'customer'], name='customer_consent_read'),
        ),
        migrations.AddField(
            model_name='dailyfigures',
            name='customer_counts',
            field=models.JSONField(default=dict, help_text='Of many customers: all that the first page counts of them, as it reads it'),
        ),
    ]
