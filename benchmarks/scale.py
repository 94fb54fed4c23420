r"""A model of the speed of data-parallel training, for docs/scale.md: images/s of 8, 64 and 512 accelerators.

    python benchmarks/scale.py --images-per-second 20
    python benchmarks/scale.py --images-per-second 20 --batch 4 --network 12.5 --pipeline 400
    python benchmarks/scale.py --images-per-second 8 --batch 4 --parameters 4e6 --accelerators 2 --devices 1 \
        --network 2 --measured 14

A step of every device takes the longer of two times: that of its own images, plus the part of the exchange of gradients
that is not hidden behind the backward pass; and that of the input pipeline of its host. Gradients are summed in rings,
first inside a host, then between hosts: a ring of n members sends 2 (n - 1) / n of the bytes through each link in
2 (n - 1) messages (Patarasuk & Yuan 2009). Only `--measured` says how far this is from the truth.
"""

import argparse
import dataclasses


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What the time of a step is computed from.

    Attributes:
        images_per_second: of one device that trains alone.
        batch: images of a device per step.
        parameters: trained numbers.
        devices: of a host.
        link: gigabytes per second of a device's link inside its host.
        network: gigabytes per second of a host's network.
        latency: microseconds of a message between hosts.
        pipeline: images per second that a host prepares; infinity where that is no limit.
        hidden: share of the exchange that runs during the backward pass, 0…1.
    """

    images_per_second: float
    batch: int = 2
    parameters: float = 44e6
    devices: int = 8
    link: float = 450.0
    network: float = 50.0
    latency: float = 20.0
    pipeline: float = float("inf")
    hidden: float = 0.0

    def exchange(self, accelerators):
        """Seconds in which the gradients, float32, are summed over all devices."""
        inside = min(self.devices, accelerators)
        hosts = -(-accelerators // self.devices)
        size = 4e-9 * self.parameters
        return _ring(inside, size / self.link, 1e-6) + _ring(hosts, size / self.network, 1e-6 * self.latency)

    def step(self, accelerators):
        """Seconds of a step, and what limits it: "compute", "exchange" (over half of the compute) or "input"."""
        compute = self.batch / self.images_per_second
        exchange = (1 - self.hidden) * self.exchange(accelerators)
        prepared = self.batch * min(self.devices, accelerators) / self.pipeline
        if prepared > compute + exchange:
            return prepared, "input"
        return compute + exchange, "exchange" if exchange > compute / 2 else "compute"

    def speed(self, accelerators):
        """Images per second of all devices."""
        return self.batch * accelerators / self.step(accelerators)[0]


def _ring(members, seconds, latency):
    """Seconds of a sum over a ring: `seconds` is what all bytes take through one link."""
    return 2 * (members - 1) * (seconds / members + latency)


def table(cluster, numbers):
    """Markdown rows: accelerators, milliseconds of a step and of the exchange in it, images/s, efficiency, limit."""
    rows = ["| accelerators | step | exchange | images/s | of linear | limit |", "|---|---|---|---|---|---|"]
    for number in numbers:
        seconds, limit = cluster.step(number)
        speed = cluster.speed(number)
        rows.append(
            f"| {number} | {1e3 * seconds:.1f} ms | {1e3 * cluster.exchange(number):.1f} ms | {speed:,.1f} "
            f"| {speed / (number * cluster.images_per_second):.0%} | {limit} |"
        )
    return "\n".join(rows)


def compared(cluster, accelerators, measured):
    """A line that compares a measured speed with the predicted one."""
    predicted = cluster.speed(accelerators)
    seconds = cluster.batch * accelerators / measured - cluster.batch / cluster.images_per_second
    return (
        f"{accelerators} accelerators: measured {measured:g} images/s, predicted {predicted:.2f} "
        f"({measured / predicted - 1:+.0%}); the measured step is {1e3 * seconds:.1f} ms longer than that of one, "
        f"the predicted exchange {1e3 * cluster.exchange(accelerators):.1f} ms"
    )


def main():
    """Prints the table, and the comparison with a measured point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Cluster):
        required = field.default is dataclasses.MISSING
        default = None if required else field.default
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=field.type, required=required, default=default)
    parser.add_argument("--accelerators", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--measured", type=float, help="images/s of the last of --accelerators")
    options = vars(parser.parse_args())
    numbers, measured = options.pop("accelerators"), options.pop("measured")
    cluster = Cluster(**options)
    print(table(cluster, numbers))
    if measured:
        print("\n" + compared(cluster, numbers[-1], measured))


if __name__ == "__main__":
    main()
