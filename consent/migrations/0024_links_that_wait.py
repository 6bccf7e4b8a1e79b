from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('consent', '0023_erasures'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='consentlink',
            index=models.Index(condition=models.Q(('closed_at__isnull', True), ('revoked_at__isnull', True)), fields=['expires_at'], name='link_unanswered'),
        ),
        migrations.AddField(
            model_name='dailyfigures',
            name='invitation_counts',
            field=models.JSONField(default=dict, help_text='Of many partners: all that the first page counts of invitations, as it reads it'),
        ),
    ]
