"""Counts epochs in the file system, as training that writes checkpoints, and goes on where it was stopped. Asks the loader
for the driver of a GPU, as PyTorch does."""

import ctypes
import pathlib
import signal
import threading

stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())

try:
    driver = f"driver {ctypes.CDLL('libcuda.so.1').cuDriverVersion()}"
except OSError as error:
    driver = f"without a driver: {error}"
checkpoint = pathlib.Path("checkpoint")
epoch = int(checkpoint.read_text()) + 1 if checkpoint.exists() else 1
checkpoint.write_text(str(epoch))
print(f"epoch {epoch} {driver}", flush=True)
stopped.wait()
