"""What the queues hold is JSON, and what somebody else leaves in them builds no object and calls no function."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from dj_queue.models import ClaimedExecution, FailedExecution, Job, Process
from dj_queue.operations.execution import execute_claimed_job
from django.apps import apps
from django.db import connection, models
from django.test import TestCase
from django.utils import timezone
from kombu.connection import Connection
from kombu.entity import Queue

from portal.runs import tasks
from portal.runs.celery import app
from tests.support.work import Work

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-30")]


class Hostile:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


def test_the_queue_knows_a_runs_number_and_its_columns_are_text_and_json() -> None:
    run = Work(number=1).start()
    with TestCase.captureOnCommitCallbacks(execute=True):
        tasks.enqueue(run)
    assert [(job.task_path, job.payload) for job in Job.objects.all()] == [
        ("portal.runs.tasks.advance", {"args": [run.pk], "kwargs": {}})
    ]
    columns = [field for model in apps.get_app_config("dj_queue").get_models() for field in model._meta.fields]
    assert not [field for field in columns if isinstance(field, models.BinaryField)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT payload FROM dj_queue_jobs")
        assert [row[0] for row in cursor.fetchall()] == [f'{{"args": [{run.pk}], "kwargs": {{}}}}']


@pytest.mark.parametrize("path", ["os.mkdir", "subprocess.run", "portal.commands.os", "consent.clients.requests"])
def test_a_planted_job_calls_nothing_that_is_no_task(tmp_path: Path, path: str) -> None:
    proof = tmp_path / "proof"
    now = timezone.now()
    job = Job.objects.create(task_path=path, payload={"args": [str(proof)], "kwargs": {}}, backend_alias="default")
    process = Process.objects.create(name="w", kind="worker", pid=1, hostname="h", last_heartbeat_at=now, metadata={})
    ClaimedExecution.objects.create(job=job, process=process)

    execute_claimed_job(job.pk)

    assert FailedExecution.objects.get(job=job).exception_class.endswith("AttributeError")
    assert not proof.exists()


def test_celery_takes_json_and_nothing_else(tmp_path: Path) -> None:
    refused: list[Exception] = []
    with Connection("memory://") as link:  # type: ignore[no-untyped-call]
        place = Queue("portal-hostile")  # type: ignore[no-untyped-call]
        consumer = app.amqp.TaskConsumer(
            link.channel(), queues=[place], on_decode_error=lambda message, error: refused.append(error)
        )
        assert set(consumer.accept) == {"application/json"}
        link.Producer().publish(
            pickle.dumps(Hostile(tmp_path / "proof")),
            routing_key="portal-hostile",
            declare=[place],
            content_type="application/x-python-serialize",
            content_encoding="binary",
        )
        with consumer:
            link.drain_events(timeout=5)
    assert [type(error).__name__ for error in refused] == ["ContentDisallowed"]
    assert not (tmp_path / "proof").exists()
