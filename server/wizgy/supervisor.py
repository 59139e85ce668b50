"""Worker processes: start, watch, replace, reload, drain, stop.

The supervisor opens the listening sockets and forks the workers, which inherit them. It runs no thread and no
code of the application, so nothing that an application does can stop it. Signal handlers only write to a
self-pipe; workers report over a pipe (`wizgy.link`).

It is one loop. Whatever happens only changes a worker's `Stage`, or how many are wanted; then `_adjust` does what
that calls for:

- where fewer workers than wanted are fresh (STARTING or READY), it starts one;
- where more than wanted serve, the oldest that is RETIRING may finish;
- where more than wanted are fresh, the oldest stops.

So a reload, a worker that has served --max-requests, one more, one fewer and a death are all the same thing, and in
each the successor serves before its predecessor stops.
"""

from __future__ import annotations

import os
import selectors
import signal
from collections import deque
from collections.abc import Callable
from typing import Final

from wizgy import cgroup, forked, log, worker
from wizgy.child import TIME_TO_SHOW, Child, Stage, describe_end
from wizgy.config import Config
from wizgy.errors import LoadError, StartError
from wizgy.generation import Generation, discard, open_generation, withdraw
from wizgy.link import Link, Report, make_link
from wizgy.listeners import Listener
from wizgy.log import logger
from wizgy.primitives import Selector, monotonic
from wizgy.signals import SelfPipe, give_back, name_of
from wizgy.systemd import Notifier, bind_inherited
from wizgy.worker import Load

TICK: Final = 1.0
"""Seconds between two looks at whether the workers live."""
LONGEST_SILENCE: Final = 10
"""Ticks after which a worker that says nothing is replaced. It says something every second."""
MEMORY_LOOKS: Final = 2
"""Ticks for which a process that the kernel killed for want of memory may explain a death."""
QUICK_DEATH: Final = 1.0
"""Seconds of life below which a worker's death counts as a failed start."""
FIRST_BACK_OFF: Final = 0.5
LONGEST_BACK_OFF: Final = 10.0
"""Seconds to wait before workers are replaced that failed to start; doubled each time."""
CAUGHT: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""The signals that mean something to the supervisor."""
EXIT_STOPPED: Final = 0
EXIT_WORKER_FAILED: Final = 1

REPLACED: Final = "it is killed, and another one takes its place."
SERVING: Final = "Serving."


def run(load: Load, config: Config, configure: Callable[[], Config]) -> int:
    """Serve until a signal stops it.

    Args:
        load: makes the application; called in each worker.
        config: the settings to begin with.
        configure: reads the settings again, for a HUP.

    Returns:
        The exit status for the process.

    Raises:
        BindError: an address cannot be listened on.
    """
    log.configure(config.log_level, config.log_format)
    config = bind_inherited(config)
    return Supervisor(load, configure, open_generation(config)).run()


class Supervisor:
    """Keeps as many workers alive as are wanted.

    Args:
        load: makes the application; called in each worker.
        configure: reads the settings again, for a HUP.
        serving: the settings and sockets to begin with; the sockets are closed in the end.
    """

    def __init__(self, load: Load, configure: Callable[[], Config], serving: Generation) -> None:
        self._load = load
        self._configure = configure
        self._serving = serving
        self._trial: Generation | None = None  # what a HUP asked for, until a worker of it is ready
        self._reloading = False  # from the HUP until all workers are new
        self._notifier = Notifier()
        self._signals = SelfPipe()
        self._selector = Selector()
        self._children: dict[int, Child] = {}
        self._wanted = serving.config.workers
        self._announced = False  # whether a worker was ever ready
        self._one_goes_ahead = True  # if the application cannot be loaded, that is said once and not by every worker
        self._memory_kills = deque([cgroup.count_memory_kills()], MEMORY_LOOKS)
        self._explained = 0  # as many of them have explained a death
        self._back_off = 0.0
        self._failed_at = 0.0  # when a worker last failed to start
        self._spawn_at = 0.0
        self._tick_at = monotonic() + TICK
        self._exit_code: int | None = None  # set once it is to end; no worker is started any more

    def run(self) -> int:
        """Supervise until stopped; returns the exit status."""
        forked.own(self._disown)
        replaced = self._signals.catch(*CAUGHT)
        if replaced:
            logger.warning(
                "The program has a handler for %s, which wizgy takes for itself: the handler is not called while it "
                "serves. Do what is to happen at the end behind wizgy.serve(), or register it with atexit.",
                ", ".join(sorted(map(name_of, replaced))),
            )
        self._selector.register(self._signals.descriptor, selectors.EVENT_READ)
        try:
            while self._exit_code is None or self._children:
                if self._exit_code is None:
                    self._adjust()
                self._wait()
        finally:
            forked.release(self._disown)
            discard(self._all_listeners())
        return self._exit_code

    # What is to be done

    def _adjust(self) -> None:
        """Bring the workers closer to what is wanted."""
        if monotonic() >= self._spawn_at:
            self._spawn_missing()
        retiring = self._in_stage(Stage.RETIRING)
        surplus = sum(child.serves for child in self._children.values()) - self._wanted
        for child in retiring[: max(surplus, 0)]:
            child.retire()
        fresh = self._fresh()
        if len(fresh) > self._wanted:
            # One that does not serve yet goes first; of the others the oldest, as there are others that serve.
            for child in sorted(fresh, key=lambda child: child.serves)[: len(fresh) - self._wanted]:
                if child.serves:
                    child.retire()
                else:
                    child.stop()
        if self._reloading and self._is_reloaded():
            self._reloading = False
            logger.info("Reloaded: the new workers serve, and the old ones finish what they have begun.")
            self._notifier.ready(SERVING)

    def _spawn_missing(self) -> None:
        fresh = self._fresh()
        missing = self._wanted - len(fresh)
        if self._one_goes_ahead:
            missing = min(missing, 0 if any(child.stage is Stage.STARTING for child in fresh) else 1)
        generations = [self._serving] * missing
        if self._trial is not None and not any(child.generation is self._trial for child in self._children.values()):
            generations.append(self._trial)
        try:
            for generation in generations:
                self._spawn(generation)
        except OSError as error:
            self._delay_spawning()
            logger.error("A worker cannot be started: %s. Trying again in %g s.", error.strerror, self._back_off)

    def _fresh(self) -> list[Child]:
        """The workers that are to stay, oldest first."""
        return [
            child
            for child in self._children.values()
            if child.stage in (Stage.STARTING, Stage.READY) and child.generation is self._serving
        ]

    def _is_reloaded(self) -> bool:
        """Whether all who take new connections are new, and as many as are wanted."""
        accepting = [child for child in self._children.values() if child.accepts]
        ready = [child for child in accepting if child.stage is Stage.READY]
        are_new = all(child.generation is self._serving for child in accepting)
        return self._trial is None and are_new and len(ready) >= self._wanted

    def _in_stage(self, stage: Stage) -> list[Child]:
        return [child for child in self._children.values() if child.stage is stage]

    def _spawn(self, generation: Generation) -> None:
        """Start a worker.

        Raises:
            OSError: the system has no room for one.
        """
        link, far_end = make_link()
        forked.flush_standard_streams()
        # A signal for the new worker waits until it has a pipe of its own: in the one that it inherits it would
        # be a signal for the supervisor.
        signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
        try:
            pid = forked.fork_worker()
            if pid == 0:
                worker.live(lambda: self._become_worker(generation, link, far_end))
        except OSError:
            link.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
            far_end.close()
        child = self._children[pid] = Child(pid, link, generation)
        self._selector.register(link.reader, selectors.EVENT_READ, child)

    def _become_worker(self, generation: Generation, supervisors_end: Link, link: Link) -> int:
        """In a new process: close what is the supervisor's, or another generation's; then work."""
        self._selector.close()
        self._signals.close()
        for other in [supervisors_end, *(child.link for child in self._children.values())]:
            other.close()
        for listener in self._all_listeners():
            listener.close_inherited()
            if listener not in generation.listeners:
                listener.close()
        return worker.work(self._load, generation, link)

    def _disown(self) -> None:
        """In a process that another thread of the program, or a handler of a signal, has just forked."""
        give_back()
        self._selector.close()
        for listener in self._all_listeners():
            listener.disown()
        for link in [child.link for child in self._children.values()]:
            link.close()
        self._signals.close()

    def _all_listeners(self) -> list[Listener]:
        trial = self._trial.listeners if self._trial else []
        return self._serving.listeners + [listener for listener in trial if listener not in self._serving.listeners]

    # What happens

    def _wait(self) -> None:
        """Wait until something happens, and take note of it."""
        came = [key for key, _ in forked.select(self._selector, self._seconds_to_wait())]
        for key in came:
            if key.data is not None:  # first, for a signal may concern who has become ready
                self._read_reports(key.data)
        if any(key.data is None for key in came):
            for number in self._signals.read():
                self._handle(number)
        now = monotonic()
        for child in self._children.values():
            if child.kill_at is not None and now >= child.kill_at:
                if child.stage is Stage.DRAINING and child.was_ready:
                    logger.warning("Worker %d did not finish within the graceful timeout: it is killed.", child.pid)
                child.kill()
        self._notifier.alive()
        if now >= self._tick_at:
            self._tick_at = now + TICK
            self._tick()

    def _seconds_to_wait(self) -> float:
        due = [self._tick_at, self._notifier.alive_at]
        due += [child.kill_at for child in self._children.values() if child.kill_at is not None]
        if self._exit_code is None and self._spawn_at > monotonic():
            due.append(self._spawn_at)
        return max(min(due) - monotonic(), 0.0)

    def _tick(self) -> None:
        """What is looked at once a second."""
        self._reap()  # a signal may have found the pipe full
        self._memory_kills.append(cgroup.count_memory_kills())
        for child in list(self._children.values()):
            child.mute += 1
            child.silent += 1
            config = child.generation.config
            if config.reload and child.serves:
                continue  # a debugger may have stopped it
            if child.serves and child.silent > LONGEST_SILENCE and child.is_stopped():
                logger.error("Worker %d is stopped by a signal; %s", child.pid, REPLACED)
                child.kill()
            elif child.serves and child.silent > LONGEST_SILENCE:
                self._give_up(child, f"has given no sign of life for {LONGEST_SILENCE} s; {REPLACED}")
            elif child.stage is Stage.STARTING and 0 < config.load_timeout <= child.silent:
                self._give_up(child, f"has not loaded the application in {config.load_timeout:g} s (--load-timeout).")

    def _give_up(self, child: Child, why: str) -> None:
        logger.error("Worker %d %s Here is what its threads do:", child.pid, why)
        child.show_stacks()
        child.kill(after=TIME_TO_SHOW)
        if not self._announced:
            self._end(LoadError.exit_code)

    def _read_reports(self, child: Child) -> None:
        """A worker says something, or its end of the pipe is closed."""
        reports = child.link.read()
        if reports is None:
            self._selector.unregister(child.link.reader)
            return
        child.mute = 0
        if set(reports) != {Report.DEAF}:
            child.silent = 0
        if Report.READY in reports and child.stage is Stage.STARTING:
            self._note_ready(child)
        if Report.CHANGED in reports and child.stage in (Stage.STARTING, Stage.READY, Stage.RETIRING):
            child.leave()
            self._spawn_at = 0.0
        if Report.FAILED in reports:
            child.has_said_why = True
        if Report.CLOSED in reports:
            self._note_closed(child)
        if Report.STUCK in reports and child.stage is Stage.READY:
            logger.error("Worker %d has a request that does not end; another one takes its place.", child.pid)
            child.stage = Stage.RETIRING
        if Report.ENOUGH in reports and child.stage is Stage.READY:
            child.stage = Stage.RETIRING

    def _note_ready(self, child: Child) -> None:
        child.ready()
        self._one_goes_ahead = False
        if child.generation is self._trial:
            self._promote(self._trial)
        if not self._announced:
            self._announced = True
            self._announce(self._serving.listeners)
            self._notifier.ready(SERVING)

    def _note_closed(self, child: Child) -> None:
        """A worker takes no new connections any more."""
        child.accepts = False
        if child.serves:
            logger.warning("Worker %d was told to stop, not by wizgy; another one takes its place.", child.pid)
            self._pace(child)
            child.finish()

    def _announce(self, listeners: list[Listener]) -> None:
        for listener in listeners:
            logger.say(listener.ready_line(secure=self._serving.tls is not None))

    def _handle(self, number: signal.Signals) -> None:
        if number is signal.SIGCHLD:
            self._reap()
        elif number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number is signal.SIGUSR1:
            for child in self._children.values():
                child.reopen()
        elif number is signal.SIGUSR2:
            self._show_stacks()
        elif self._exit_code is not None:
            return
        elif number in (signal.SIGTTIN, signal.SIGTTOU):
            self._wanted = max(self._wanted + (1 if number is signal.SIGTTIN else -1), 1)
        elif number is signal.SIGHUP:
            self._reload()

    def _show_stacks(self) -> None:
        for child in self._children.values():
            if not child.reads_orders:
                logger.warning("Worker %d loads, or hangs. Here is what its threads do:", child.pid)
            child.show_stacks()

    def _stop(self) -> None:
        """The first time, let requests finish; the second, stop at once."""
        if self._exit_code is not None:
            for child in self._children.values():
                child.kill()
            return
        self._notifier.stopping()
        for listener in self._all_listeners():
            listener.close()  # the workers have their own; the last one to close refuses
            listener.close_inherited()
        self._end(EXIT_STOPPED)

    def _end(self, exit_code: int) -> None:
        """End with that status, once the workers have."""
        self._exit_code = exit_code
        for child in self._children.values():
            if child.stage is not Stage.KILLED:
                child.stop()

    # Reload

    def _reload(self) -> None:
        """Read the settings again and try a worker with them; those that serve go on until it is ready."""
        self._abandon_trial()
        logger.info("HUP: loading application and settings anew.")
        self._notifier.reloading()
        self._reloading = True
        try:
            config = bind_inherited(self._configure())
            trial = open_generation(config, self._serving)
        except (StartError, OSError) as error:
            self._fail_reload(str(error))
            return
        except Exception as error:  # noqa: BLE001 - what serves goes on, whatever this is
            logger.exception("A fault of wizgy itself:")
            self._fail_reload(f"{error!r}.")
            return
        self._trial = trial
        self._spawn_at = 0.0
        if not self._announced:
            # Nothing serves that could go on: whatever loads is loaded anew.
            self._promote(trial)

    def _fail_reload(self, why: str) -> None:
        self._reloading = False
        logger.error("The reload failed: %s What ran before keeps serving. Mend it and send HUP again.", why)
        self._notifier.ready("The reload failed; what ran before keeps serving.")

    def _promote(self, generation: Generation) -> None:
        """Let what was on trial take over: its workers are the fresh ones from now on."""
        before, self._serving, self._trial = self._serving, generation, None
        generation.permit()
        if generation.config.workers != before.config.workers:
            self._wanted = generation.config.workers
        log.configure(generation.config.log_level, generation.config.log_format)
        for child in self._children.values():
            if child.generation is generation:
                continue
            if child.stage is Stage.STARTING:
                child.stop()
            elif child.stage is Stage.READY:
                child.stage = Stage.RETIRING
        discard([listener for listener in before.listeners if listener not in generation.listeners])
        if self._announced:
            self._announce([listener for listener in generation.listeners if listener not in before.listeners])

    def _abandon_trial(self) -> None:
        """Drop what is on trial, with its worker and what was opened for it."""
        trial, self._trial = self._trial, None
        self._reloading = False
        if trial is None:
            return
        for child in self._children.values():
            if child.generation is trial:
                child.stop()
        withdraw([listener for listener in trial.listeners if listener not in self._serving.listeners])

    # The end of a worker

    def _reap(self) -> None:
        """Collect every child that has ended; as PID 1 of a container those of others too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.get(pid)
            if child is not None:
                self._bury(child, os.waitstatus_to_exitcode(status))

    def _bury(self, child: Child, exit_code: int) -> None:
        child.has_ended = True
        if child.link.reader in self._selector.get_map():
            self._read_reports(child)
        if child.link.reader in self._selector.get_map():
            self._selector.unregister(child.link.reader)
        del self._children[child.pid]
        child.link.close()
        if child.stage is Stage.DRAINING:
            if child.was_ready and exit_code != EXIT_STOPPED:
                logger.error(
                    "Worker %d, which was to finish what it had begun, %s.", child.pid, self._say_end(exit_code)
                )
        elif self._exit_code is not None:
            return  # it was given up
        elif child.generation is self._trial:
            self._abandon_trial()
            self._fail_reload(f"The new worker {self._describe(child, exit_code)}.")
        elif not self._announced:  # nothing has ever worked, so trying again would not either
            if not child.has_said_why:
                logger.error("The first worker %s.", self._describe(child, exit_code))
            self._end(exit_code if child.has_said_why else EXIT_WORKER_FAILED)
        else:
            self._mourn(child, exit_code)

    def _mourn(self, child: Child, exit_code: int) -> None:
        """A worker has died that had a place: another one takes it, though not at once if that would fail too."""
        self._pace(child)
        if child.stage is not Stage.KILLED:  # else it was said when it was given up
            delay = max(self._spawn_at - monotonic(), 0.0)
            successor = f"another one is tried in {delay:.1f} s" if delay else "another one takes its place"
            logger.error("Worker %d %s; %s.", child.pid, self._describe(child, exit_code), successor)

    def _pace(self, child: Child) -> None:
        """Take more time from one worker to the next where they do not last."""
        quick = monotonic() - child.started < QUICK_DEATH
        if child.stage is Stage.STARTING or (quick and self._back_off):
            if child.started > self._failed_at:  # else it was of the same attempt as the last that failed
                self._delay_spawning()
        else:
            self._back_off = FIRST_BACK_OFF if quick else 0.0

    def _delay_spawning(self) -> None:
        self._one_goes_ahead = True
        self._back_off = min(max(self._back_off * 2, FIRST_BACK_OFF), LONGEST_BACK_OFF)
        self._failed_at = monotonic()
        self._spawn_at = self._failed_at + self._back_off

    def _describe(self, child: Child, exit_code: int) -> str:
        if child.stage is Stage.KILLED:
            return "was not ready in time"
        text = self._say_end(exit_code)
        return text if child.stage is not Stage.STARTING else f"{text} before it was ready"

    def _say_end(self, exit_code: int) -> str:
        explained = max(self._explained, self._memory_kills[0])
        memory = exit_code == -signal.SIGKILL and cgroup.count_memory_kills() > explained
        if memory:
            self._explained = explained + 1
        return describe_end(exit_code, memory=memory)
