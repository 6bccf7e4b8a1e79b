from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0009_contacts_get_invitations'),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name='customertenant',
            name='customer_not_ready',
        ),
        migrations.AddIndex(
            model_name='customertenant',
            index=models.Index(condition=models.Q(('readiness_owner__gt', '')), fields=['readiness_owner', 'missing_since', 'partner', 'id'], name='customer_not_ready'),
        ),
    ]
