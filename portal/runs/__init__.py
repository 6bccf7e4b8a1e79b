"""Bulk work that is resumable, paced, fair and watchable.

A *kind* of work is declared once, in ``WORK`` of an app's module ``work``, and everything else is the engine's::

    Kind(
        name="token_check",                  # a word; kept in rows and used by commands
        label="Token check",
        units=units,    # (scope, after, limit) -> the next units in key order; key > after; empty at the end
        load=load,      # (keys, context) -> {key: subject}; few queries for all of them; what is left out is skipped
        work=work,      # (key, subject, context) -> Outcome; in a thread, over the network, without the database
        write=write,    # (done, context); one transaction around it; few queries for all of them
        after=after,    # (subject, context), optional: a call over the network for once the result is committed
        settle=settle,  # (subjects, context), optional: write what came of those calls; few queries for all of them
        release=release,  # (subjects, context), optional: give back what load took, for units without a result
    )

``service.start`` makes a ``Run`` (or finds the open one of the same kind and scope), ``executor.Executor`` works it: in
the foreground of a command (``console.foreground``) or in a worker (``tasks.advance``), alone or beside others. All
state is in rows, so an executor can be killed at any instant. What one holds when it dies is given to another as soon
as its lease is over: a unit may be *worked* twice, and its result is *written* once.

What a kind must keep:

* ``work`` is safe to run again (R-02, R-20), takes its time limit from the engine and reaches the network only through
  the guarded session, where the engine paces every call (``pacing``). It never raises for a failure that it knows; what
  it raises all the same becomes the outcome ``unexpected_error`` of this unit (R-30).
* ``work`` runs no query, unless the kind says ``uses_database``: then its thread has a connection for a statement or a
  transaction (``connections``).
* ``write`` gets only units that this executor still holds; an executor that lost its lease writes nothing (R-03, R-27).
* Units may have a ``wave``: those of a later one wait until every unit of the one before has its result, and with a
  ``stop_share`` a wave in which more than that failed halts the run until a person lets it go on (``waves``).
* An outcome that is ``pending`` went well and is not over: it comes again as often as the kind says so.
* An outcome with ``retry_after`` is put back and comes again, at most five times (R-16); ``write`` sees the last one.
* An outcome with ``systemic`` says that the cause is on our side. Five at the start, or more than a fifth of the last
  fifty, stop the run, change no subject's state, and make one incident (R-14).
* An outcome with ``blame`` names the fault of a partner that a fault of ours would explain as well. It is written when
  it is clear that not nearly all have it; else the run stops in the same way (``systemic``).
"""
