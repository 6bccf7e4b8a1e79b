from django.db import migrations, models
import django.db.models.deletion


class Migration(migrations.Migration):

    dependencies = [
        ('consent', '0025_one_mechanism_for_two_persons'),
        ('tenants', '0012_listed_customers_by_name'),
    ]

    operations = [
        migrations.CreateModel(
            name='UnreadCustomer',
            fields=[
                ('customer', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='+', serialize=False, to='tenants.customertenant')),
            ],
            options={
                'verbose_name': 'customer that was never read',
                'verbose_name_plural': 'customers that were never read',
                'default_permissions': (),
            },
        ),
    ]
