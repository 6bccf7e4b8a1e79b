from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('consent', '0021_token_uses'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='containment',
            options={'default_permissions': ('view',), 'ordering': ['-pk'], 'permissions': [('begin_containment', 'Can stop all use of tokens at once'), ('resume_containment', 'Can ask for or confirm the end of an emergency stop')], 'verbose_name': 'emergency stop'},
        ),
    ]
