"""What a process may use, in trees that the kernel could show: the expected numbers are worked out by hand."""

import os
import subprocess
import sys

import pytest

from nsd_zarr.resources import choose_memory_limit, count_cores, find_groups, read_available_memory

MIB = 2**20
V2 = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "32 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)


@pytest.fixture
def tree(tmp_path):
    """Writes files below a root: a machine with 4096 MiB free, and a process that holds 100 MiB."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    write(
        {
            "proc/meminfo": "MemTotal:       9000000 kB\nMemFree: 1 kB\nMemAvailable:   4194304 kB\n",
            "proc/self/status": "Name:\tpython\nVmSize:\t  512000 kB\nRssAnon:\t   81920 kB\nRssShmem:\t   20480 kB\n",
            "proc/self/limits": "Limit Soft Hard Units\nMax address space  unlimited  unlimited  bytes\n",
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
        }
    )
    return write


def available(root, **environ):
    return read_available_memory(root, environ) // MIB


def test_a_machine_without_limits_has_what_is_free_and_what_the_process_holds(tree):
    assert available(tree({})) == 4096 + 100


@pytest.mark.parametrize("limited", ["system.slice", "system.slice/slurm.scope", "system.slice/slurm.scope/job_7"])
def test_version_2_limit_of_any_group_on_the_way_up_counts_less_its_use_without_cache(tree, limited):
    files = {f"sys/fs/cgroup/{limited}/memory.max": f"{1000 * MIB}\n"}
    files |= {f"sys/fs/cgroup/{limited}/memory.current": f"{700 * MIB}\n"}
    files |= {f"sys/fs/cgroup/{limited}/memory.stat": f"anon 1\ninactive_file {300 * MIB}\nactive_file {200 * MIB}\n"}
    files |= {"sys/fs/cgroup/system.slice/slurm.scope/job_7/memory.high": "max\n"}
    groups = {"proc/self/cgroup": "0::/system.slice/slurm.scope/job_7\n", "proc/self/mountinfo": V2}
    assert available(tree(files | groups)) == 1000 - (700 - 500) + 100


def test_the_least_of_several_groups_counts(tree):
    files = {"sys/fs/cgroup/a/memory.max": f"{900 * MIB}", "sys/fs/cgroup/a/memory.current": f"{600 * MIB}"}
    files |= {"sys/fs/cgroup/a/b/memory.max": f"{500 * MIB}", "sys/fs/cgroup/a/b/memory.current": f"{100 * MIB}"}
    files |= {"proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": V2}
    assert available(tree(files)) == 300 + 100


def test_memory_high_counts_as_a_limit(tree):
    files = {"sys/fs/cgroup/a/memory.max": "max", "sys/fs/cgroup/a/memory.high": f"{200 * MIB}"}
    assert available(tree(files | {"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": V2})) == 200 + 100


def test_container_that_sees_its_group_as_the_root_of_the_tree(tree):
    files = {"sys/fs/cgroup/memory.max": f"{256 * MIB}\n", "sys/fs/cgroup/memory.current": f"{56 * MIB}\n"}
    mount = V2.replace("0:27 / ", "0:27 /docker/abc ")
    for name in ("/docker/abc", "/"):
        assert available(tree(files | {"proc/self/cgroup": f"0::{name}\n", "proc/self/mountinfo": mount})) == 200 + 100


def test_version_1_limit_counts_nested_and_its_word_for_none_does_not(tree):
    files = {"proc/self/cgroup": "9:cpu,cpuacct:/job\n4:memory:/slurm/job\n0::/\n", "proc/self/mountinfo": V1}
    folder = "sys/fs/cgroup/memory/slurm"
    files |= {f"{folder}/job/memory.limit_in_bytes": "9223372036854771712\n"}
    files |= {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}
    assert available(tree(files)) == 4096 + 100
    files |= {f"{folder}/memory.limit_in_bytes": f"{800 * MIB}\n", f"{folder}/memory.usage_in_bytes": f"{500 * MIB}\n"}
    files |= {f"{folder}/memory.stat": f"inactive_file 0\nactive_file 0\ntotal_inactive_file {90 * MIB}\n"}
    assert available(tree(files)) == 800 - (500 - 90) + 100


def test_ulimit_on_addresses_counts_less_what_is_mapped(tree):
    limits = f"Limit   Soft Limit   Hard Limit   Units\nMax address space   {900 * MIB}   unlimited   bytes\n"
    assert available(tree({"proc/self/limits": limits})) == 900 - 500 + 100


def test_slurm_limits_count_as_what_the_job_may_hold(tree):
    assert available(tree({}), SLURM_MEM_PER_NODE="2000") == 2000
    assert available(tree({}), SLURM_MEM_PER_CPU="300", SLURM_CPUS_PER_TASK="4") == 1200
    assert available(tree({}), SLURM_MEM_PER_CPU="300", SLURM_CPUS_ON_NODE="2") == 600
    assert available(tree({}), SLURM_MEM_PER_CPU="300") == 300
    assert available(tree({}), SLURM_MEM_PER_NODE="0") == 4096 + 100  # all of the node


def test_a_group_that_is_over_its_limit_leaves_what_the_process_holds(tree):
    files = {"sys/fs/cgroup/a/memory.max": f"{50 * MIB}", "sys/fs/cgroup/a/memory.current": f"{70 * MIB}"}
    assert available(tree(files | {"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": V2})) == 100


@pytest.mark.parametrize("text", ["", "\n", "0:\n", "0::/../..\n", "0::/gone/away\n", "x:y:z\n", "a\x00b\n"])
def test_odd_files_of_the_kernel_are_passed_over(tree, text):
    root = tree({"proc/self/cgroup": text, "proc/self/mountinfo": V2, "sys/fs/cgroup/memory.max": "what\n"})
    assert available(root) == 4096 + 100
    assert all(folder.is_dir() for folder in find_groups(root, "memory"))


def test_a_system_without_proc_has_some_memory_and_a_core(tmp_path):
    assert read_available_memory(tmp_path, {}) > MIB
    assert count_cores(tmp_path, {}) == os.cpu_count()


@pytest.fixture
def many_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)


@pytest.mark.parametrize(("quota", "cores"), [("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1)])
def test_quota_of_any_group_on_the_way_up_counts(tree, many_cores, quota, cores):
    files = {"proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": V2, "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}
    assert count_cores(tree(files), {}) == 64
    assert count_cores(tree(files | {"sys/fs/cgroup/a/cpu.max": f"{quota}\n"}), {}) == cores


def test_quota_of_version_1_counts_and_minus_one_does_not(tree, many_cores):
    files = {"proc/self/cgroup": "9:cpuacct,cpu:/job\n", "proc/self/mountinfo": V1}
    folder = "sys/fs/cgroup/cpu,cpuacct/job"
    files |= {f"{folder}/cpu.cfs_period_us": "100000\n", f"{folder}/cpu.cfs_quota_us": "-1\n"}
    assert count_cores(tree(files), {}) == 64
    assert count_cores(tree(files | {f"{folder}/cpu.cfs_quota_us": "300000\n"}), {}) == 3


def test_slurm_cores_count(tree, many_cores):
    assert count_cores(tree({}), {"SLURM_CPUS_PER_TASK": "5"}) == 5
    for odd in ("", "0", "x", "128"):
        assert count_cores(tree({}), {"SLURM_CPUS_PER_TASK": odd}) == 64


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_affinity_of_this_process_counts():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from nsd_zarr.resources import count_cores; print(count_cores(environ={}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "1\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ulimit_of_this_process_counts():
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
    code += "from nsd_zarr.resources import read_available_memory; print(read_available_memory() <= 2**30)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "True\n"


def test_what_nobody_named_is_half_of_what_is_free():
    assert choose_memory_limit(12345) == 12345
    assert choose_memory_limit() <= read_available_memory()
