from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0011_disable_permission'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='customertenant',
            index=models.Index(condition=models.Q(('missing_since__isnull', True)), fields=['company_name', 'id'], name='customer_listed_by_name'),
        ),
    ]
