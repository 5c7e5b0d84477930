"""How each invariant of docs/architecture.md is broken on purpose, and which tests must then fail.

One entry per row of the table there, under its words. `break_invariants.py` carries them out.
"""

from __future__ import annotations

from collections.abc import Mapping

from breakage import Break
from worker_breaks import WORKER_BREAKS

_CHECKS = "tests/host/checks_patching.py"
_EVICTION = "tests/lora/cache/test_cache_eviction.py"
_FAILURES = "tests/lora/cache/test_cache_failures.py"
_RACES = "tests/lora/cache/test_cache_races.py"
_LIMITS = "tests/prefetch/test_prefetcher_limits.py"

BREAKS: Mapping[str, tuple[Break, ...]] = {
    **WORKER_BREAKS,
    "The picture never depends on the cache": (
        Break(
            "the last bytes of a private read never come, those of a mapped one do",
            "loaders/reading/private.py",
            "fill(path, file, [(target, header.data_start)], pace",
            "fill(path, file, [(target[:-64], header.data_start)], pace",
            (
                "tests/host/test_queue.py::TestBatch::test_no_picture_depends_on_the_prefetch_or_the_loader",
                "tests/worker/test_batch.py::test_pictures_do_not_depend_on_prefetch_cache_or_budget",
            ),
        ),
    ),
    "Nor on which models are read ahead": (
        Break(
            "a model counts as warm after its first chunk",
            "loaders/system/page_cache.py",
            "        while done_bytes < size_bytes:\n",
            "        while not done_bytes:\n",
            (
                "tests/host/test_model_tier_on_host.py"
                "::test_the_next_model_is_warm_before_its_turn_and_no_picture_depends_on_it",
            ),
        ),
    ),
    "Nor on how the model was loaded: every strategy, one file or shards": (
        Break(
            "what is streamed is read from the file's first bytes",
            "loaders/reading/stream.py",
            "[(target, header.data_start + piece.start)]",
            "[(target, header.data_start)]",
            (
                "tests/host/test_model_loaders.py::test_a_diffusion_model_is_the_stock_loaders",
                "tests/host/test_model_loaders.py::test_a_checkpoint_is_the_stock_loaders",
            ),
        ),
    ),
    "`exact` is bit-equal to chained stock loaders": (
        Break(
            "layers that are appended without the host come in another order",
            "nodes/patches/applied_stack.py",
            "    for layer in others:\n        for target,",
            "    for layer in reversed(others):\n        for target,",
            (
                f"{_CHECKS}::check_exact_equals_chained_stock_loaders_on_model_and_clip",
                f"{_CHECKS}::check_exact_equals_chained_stock_loaders_on_sliced_qkv",
                f"{_CHECKS}::check_every_adapter_type_in_every_order",
            ),
        ),
    ),
    "`fused` differs by at most 1e-6 of the update": (
        Break(
            "the scales of a stack are rounded to bf16",
            "lora/fusing/fuse.py",
            "torch.tensor(scales, dtype=up.dtype,",
            "torch.tensor(scales, dtype=torch.bfloat16,",
            (f"{_CHECKS}::check_fused_is_within_a_millionth_of_the_update", "tests/lora/fusing/test_fuse.py"),
        ),
    ),
    "Reserved bytes never exceed the budget; what is evicted and still referenced stays reserved": (
        Break(
            "a reservation ends with the adapter although a view of its buffer is alive",
            "lora/cache/cache.py",
            "reservation.release_with(adapter.buffer)",
            "reservation.release_with(adapter)",
            (f"{_EVICTION}::test_a_buffer_that_something_still_references_stays_reserved",),
        ),
        Break(
            "what is reserved already is not counted",
            "lora/cache/budget.py",
            "if used_bytes > self._limit_bytes:",
            "if nbytes > self._limit_bytes:",
            (
                "tests/lora/cache/test_budget.py::test_what_is_reserved_never_passes_the_limit",
                "tests/lora/cache/test_cache_state.py",
                "tests/prefetch/test_prefetcher_states.py",
            ),
        ),
    ),
    "A stack larger than the budget streams through": (
        Break(
            "what finds no room is read into memory that nobody has reserved",
            "lora/cache/cache.py",
            'self._read(flight, "mapped", None)',
            'self._read(flight, "private", None)',
            (
                f"{_EVICTION}::test_a_stack_larger_than_the_budget_streams_through",
                "tests/prefetch/test_prefetcher_disks.py::test_a_job_larger_than_the_budget_streams_through",
            ),
        ),
    ),
    "On the device too, to the byte; memory goes to nobody while a stream works with it": (
        Break(
            "memory is free as soon as no use is left, whatever the streams still do",
            "lora/device/device_adapter.py",
            "return not self.count and all(moment.done for moment in self.moments)",
            "return not self.count",
            (
                "tests/lora/device/test_device_shelf_state.py",
                "tests/lora/device/test_device_shelf.py::test_memory_stays_until_the_stream_that_works_with_it_is_through",
            ),
        ),
    ),
    "A running job's adapters are never evicted": (
        Break(
            "a lease does not keep its adapter",
            "lora/cache/cache.py",
            "return found.resident is not None and found.holds.count == 0 and",
            "return found.resident is not None and",
            (f"{_EVICTION}::test_an_adapter_in_use_or_pinned_is_never_evicted",),
        ),
        Break(
            "a second stack on a patched model lets go of the first one's adapters",
            "nodes/patches/leasing.py",
            "(*inherited, *leases)",
            "tuple(leases)",
            (f"{_CHECKS}::check_leases_live_exactly_as_long_as_the_patcher",),
        ),
    ),
    "Whatever policy ranks, no lease, pin or sooner need is a victim; a guess lives in free space and goes first": (
        Break(
            "a prefetch displaces what is needed just as soon",
            "lora/cache/victims.py",
            "candidate.next_use > next_use",
            "candidate.next_use >= next_use",
            (f"{_EVICTION}::test_a_prefetch_never_evicts_what_is_needed_as_soon",),
        ),
        Break(
            "a guess is ranked like everything else",
            "lora/cache/victims.py",
            "(not candidate.is_unasked, policy.rank(candidate))",
            "policy.rank(candidate)",
            ("tests/lora/cache/test_policies.py::test_a_guess_goes_first_under_every_policy",),
        ),
    ),
    "Models are read last on a disk, in order of need, only into memory that neither LoRAs nor the running job need": (
        Break(
            "the memory of the running job's models is given away",
            "prefetch/models/plan.py",
            "min(room.spare_bytes, room.free_bytes - needed.in_use_bytes)",
            "min(room.spare_bytes, room.free_bytes)",
            ("tests/prefetch/models/test_plan.py::test_every_plan_keeps_the_rules",),
        ),
        Break(
            "a model is read beside the LoRAs",
            "prefetch/models/tier.py",
            "return self._warmer.is_reading(fetch.file.path) or self._warmer.keeps_off",
            "return self._warmer.keeps_off",
            (
                "tests/prefetch/models/test_tier_yields.py::test_loras_come_first_whoever_needs_them",
                "tests/prefetch/models/test_tier_yields.py::test_a_read_that_gives_way_goes_on_where_it_stopped",
            ),
        ),
    ),
    "One load per file in flight; every waiter wakes": (
        Break(
            "who finds a load in flight reads the file too",
            "lora/cache/cache.py",
            "leads = current.key not in self._flights\n",
            "leads = True\n",
            (f"{_RACES}::test_two_demands_share_one_load",),
        ),
        Break(
            "a load that ends in a way that nobody foresaw never lands",
            "lora/cache/cache.py",
            "        finally:\n            self._land(flight, held, failure)\n        return held",
            "        self._land(flight, held, failure)\n        return held",
            (
                f"{_RACES}::test_an_unforeseen_error_wakes_the_waiters",
                "tests/lora/cache/test_cache_interleavings.py"
                "::test_an_interrupt_in_the_middle_of_a_read_leaves_nothing_behind",
            ),
        ),
        Break(
            "one passenger who gives up ends the load of all",
            "lora/cache/flight.py",
            "return all(cancelled() for",
            "return any(cancelled() for",
            (f"{_RACES}::test_a_demand_survives_the_cancel_of_the_prefetch_it_joined",),
        ),
    ),
    "Nobody waits for ever: what is paused goes on or is given up, on every disk and for every reader": (
        Break(
            "what was paused stays so",
            "prefetch/reading/schedule.py",
            "                reading.resume()\n",
            "                pass\n",
            ("tests/prefetch/reading/test_schedule_states.py",),
        ),
        Break(
            "who joins a paused read waits at its gate",
            "prefetch/reading/gate.py",
            "while not (self.is_open or released()):",
            "while not self.is_open:",
            ("tests/prefetch/reading/test_reading.py::test_a_demand_passes_a_closed_gate_and_is_told_once",),
        ),
    ),
    "A failure is remembered until the file changes; a changed file is never served stale": (
        Break(
            "a failure outlives the file that it was about",
            "lora/cache/failures.py",
            "if file is not None and file.key != key:",
            "if file is not None and file.path != path:",
            (f"{_FAILURES}::test_a_failure_wakes_everybody_and_is_remembered_until_the_file_changes",),
        ),
        Break(
            "what the catalog knew counts, not what is on disk",
            "lora/cache/cache.py",
            'refresh the list")\n        return current',
            'refresh the list")\n        return file',
            (f"{_FAILURES}::test_a_changed_file_is_never_served_stale",),
        ),
        Break(
            "the state of a file is its name and size",
            "nodes/stack_input.py",
            "return (file.name, file.mtime_ns, file.size_bytes)",
            "return (file.name, file.size_bytes)",
            ("tests/host/checks_nodes.py::check_a_changed_file_runs_the_node_again",),
        ),
        Break(
            "what comes over a link has no files",
            "nodes/stack_input.py",
            'states if changes is None else f"{states} {changes}"',
            "states",
            ("tests/host/checks_nodes.py::check_a_changed_file_runs_the_node_again",),
        ),
    ),
    "A background reader never unpickles": (
        Break(
            "the cache prefetches whatever it is told to",
            "lora/cache/cache.py",
            "        if file.is_pickle:\n",
            "        if file.problem:\n",
            (f"{_FAILURES}::test_a_pickle_is_never_opened_by_a_prefetch",),
        ),
        Break(
            "a job's pickles are planned like its other files",
            "prefetch/queue/need.py",
            "file is not None and not file.is_pickle and not file.problem",
            "file is not None and not file.problem",
            (
                "tests/prefetch/test_prefetcher_files.py::test_pickles_are_never_opened",
                "tests/prefetch/test_prefetcher_states.py",
            ),
        ),
    ),
    "Nothing outside the host's folders is opened for a request; no path leaves the server": (
        Break(
            "a name that the catalog lacks is looked for on disk",
            "lora/library/name_index.py",
            "        return Missing(name, self._similar)\n",
            "        path = os.path.join(next(iter(self._folders), ''), name)\n"
            "        if os.path.isfile(path):\n"
            "            return Found(LoraFile(name, path, *os.stat(path)[6:9:2]), 'exact')\n"
            "        return Missing(name, self._similar)\n",
            ("tests/nodes/api/test_actions.py::test_no_way_out_of_the_folders",),
        ),
        Break(
            "a model's name may lead upwards",
            "nodes/models/model_files.py",
            'or ".." in parts or',
            "or",
            ("tests/nodes/models/test_found_models.py::test_no_way_out_of_the_folders",),
        ),
        Break(
            "what is wrong with a header is told as the loader tells it, with the path",
            "lora/library/header_facts.py",
            "ValidationError as error:\n        return HeaderFacts(problem=_one_line(error.reason))",
            "ValidationError as error:\n        return HeaderFacts(problem=_one_line(str(error)))",
            ("tests/nodes/test_runtime.py::test_no_path_leaves_in_a_status_a_plan_or_a_page",),
        ),
    ),
    "Broken or out of memory, ComfyUI runs as if WarmStack were not installed": (
        Break(
            "a start that fails for another reason than an import takes the nodes with it",
            "nodes/startup.py",
            "    except Exception as error:\n",
            "    except ImportError as error:\n",
            ("tests/host/test_pack.py::test_a_broken_part_costs_the_prefetch_and_one_line",),
        ),
        Break(
            "something of the host is taken away before all of the pack is imported",
            "__init__.py",
            "    from .nodes.extension import",
            "    import comfy.sd\n\n    del comfy.sd.load_lora_for_models\n    from .nodes.extension import",
            ("tests/host/test_pack.py::test_a_pack_that_cannot_be_imported_leaves_the_host_alone",),
        ),
        Break(
            "a demand fails where it could stream",
            "lora/cache/cache.py",
            "            if not flight.demands:\n                raise\n            return None\n",
            "            raise\n",
            (f"{_FAILURES}::test_a_demand_streams_when_the_memory_of_its_reservation_is_not_there",),
        ),
    ),
    "No patcher is held strongly": (
        Break(
            "what is known of a model keeps it",
            "nodes/patches/target_model.py",
            "WeakKeyDictionary[torch.nn.Module, TargetModel] = WeakKeyDictionary()",
            "WeakKeyDictionary[torch.nn.Module, TargetModel] = {}",
            (f"{_CHECKS}::check_target_models_are_forgotten_with_the_model",),
        ),
        Break(
            "a list of all patchers is kept",
            "nodes/patches/applied_stack.py",
            "    patcher.set_attachments(LEASES, LeaseHolder(leases, patcher.get_attachment(LEASES)))\n",
            "    patcher.set_attachments(LEASES, LeaseHolder(leases, patcher.get_attachment(LEASES)))\n"
            "    _attach.__dict__.setdefault('patchers', []).append(patcher)\n",
            (f"{_CHECKS}::check_buffers_are_given_back_with_the_last_patcher",),
        ),
    ),
    "`/free`, memory pressure and shutdown release what we hold": (
        Break(
            "POST /free only wakes the prefetcher",
            "nodes/service.py",
            "on_change(self._runtime.wake, self._runtime.release)",
            "on_change(self._runtime.wake, self._runtime.wake)",
            ("tests/host/test_queue.py::test_freeing_memory_lets_go_of_every_adapter",),
        ),
        Break(
            "ours yield memory after the host's",
            "nodes/runtime.py",
            "max(default_bytes, self._host.headroom_bytes())",
            "min(default_bytes, self._host.headroom_bytes())",
            ("tests/nodes/test_runtime.py::test_ours_yields_memory_before_the_host_does",),
        ),
        Break(
            "what is in use does not shrink by what is missing",
            "prefetch/pressure.py",
            "min(limit_bytes, target_bytes, used_bytes - missing_bytes)",
            "min(limit_bytes, target_bytes, limit_bytes - missing_bytes)",
            (f"{_LIMITS}::test_under_pressure_the_budget_shrinks_and_pages_wait_then_both_come_back",),
        ),
        Break(
            "the budget is followed only when it changes",
            "prefetch/memory_watch.py",
            "if limit_bytes != cached.limit_bytes or cached.used_bytes > limit_bytes:",
            "if limit_bytes != cached.limit_bytes:",
            (f"{_LIMITS}::test_what_lands_or_is_let_go_under_pressure_goes_too",),
        ),
        Break(
            "reads that were asked for by hand go on at the end",
            "nodes/runtime.py",
            "        self._actions.close()\n",
            "",
            ("tests/nodes/test_startup.py::test_the_end_of_the_process_stops_every_reader",),
        ),
        Break(
            "tasks are left to a loop that does not turn any more",
            "nodes/service.py",
            "        for task in tasks:\n            task.cancel()\n",
            "        return\n",
            ("tests/nodes/test_startup.py::test_closing_after_the_loop_has_stopped_ends_the_tasks",),
        ),
        Break(
            "the end of the process waits for the reading threads",
            "loaders/system/daemon_pool.py",
            ", daemon=True)",
            ", daemon=False)",
            ("tests/host/test_pack.py::test_ending_while_a_file_is_being_read_is_quiet",),
        ),
    ),
}
