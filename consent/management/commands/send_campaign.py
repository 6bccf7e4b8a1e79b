from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from consent.invitations import campaigns
from consent.management.base import EXIT_SOME_FAILED, EXIT_SYSTEMIC, ConsentCommand
from consent.models import Campaign
from portal.mail import MailUnavailable, open_mailer


class Command(ConsentCommand):
    name = "send_campaign"
    help = (
        "Send the invitations of a campaign that were not sent yet, or remind those who are not done. It may be "
        "stopped and run again: nothing is sent twice. Exit codes: 0 all sent, 1 some partners could not be mailed, "
        "3 stopped because the mail server cannot be used."
    )
    examples = (
        "send_campaign 3",
        "send_campaign 3 --remind",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("campaign", type=int, metavar="ID", help="id of the campaign, as its page shows it")
        parser.add_argument(
            "--remind",
            action="store_true",
            help="mail a new link to those who are not done and got no mail for three days; the older link is revoked",
        )

    def work(self, options: dict[str, Any]) -> int:
        campaign = Campaign.objects.filter(pk=options["campaign"]).first()
        if campaign is None:
            raise CommandError(f"There is no campaign {options['campaign']}; see the admin.", returncode=2)
        run = campaigns.remind if options["remind"] else campaigns.send
        sent = failed = 0
        try:
            with open_mailer() as mailer:
                for number, mailing in enumerate(run(campaign, mailer=mailer, actor=self.actor), start=1):
                    failed += mailing.problem is not None
                    sent += mailing.problem is None
                    self.say(f"{number} {mailing.partner}: {mailing.problem.label if mailing.problem else 'sent'}")
        except campaigns.CampaignRefused as refused:
            raise CommandError(str(refused), returncode=2) from None
        except MailUnavailable as unavailable:
            self.stderr.write(f"Stopped after {sent} sent: {unavailable} Run the command again afterwards.")
            return EXIT_SYSTEMIC
        self.say(f"{sent} sent, {failed} could not be mailed.")
        return EXIT_SOME_FAILED if failed else 0
