from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0012_listed_customers_by_name'),
    ]

    operations = [
        migrations.AddField(
            model_name='partnertenant',
            name='customers_judged_at',
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AlterField(
            model_name='customertenant',
            name='last_seen_at',
            field=models.DateTimeField(blank=True, help_text='Empty while the latest list that came to its end has it', null=True),
        ),
        migrations.AlterField(
            model_name='customertenant',
            name='judged_at',
            field=models.DateTimeField(blank=True, help_text='When this verdict was written', null=True),
        ),
        migrations.AlterField(
            model_name='gdaprelationship',
            name='last_seen_at',
            field=models.DateTimeField(blank=True, help_text='As that of a customer', null=True),
        ),
        migrations.AlterField(
            model_name='gdaprelationship',
            name='assignments_read_at',
            field=models.DateTimeField(blank=True, help_text='For the first time; only those of live ones are read', null=True),
        ),
        migrations.AlterField(
            model_name='gdapaccessassignment',
            name='last_seen_at',
            field=models.DateTimeField(blank=True, help_text='As that of a customer', null=True),
        ),
    ]
