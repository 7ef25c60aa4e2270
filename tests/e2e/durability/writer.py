# Writes numbered files all over the root filesystem and prints each when it is written, or lists which of them exist.
#
#   write                    waits for SIGUSR2, then writes and prints `RUN NUMBER` until it is killed
#   verify RUN LAST          prints what became of the files 0 to LAST of a run: JSON
#
# Three of four files are synced with all directories that are new on their way, before they are acknowledged. SIGUSR1
# makes the writer take all the memory that there is.
import errno, json, os, signal, sys, time, uuid

PLACES = ["/root", "/etc", "/usr/local/share", "/var/lib", "/srv", "/opt", "/home", "/"]
# Files of the image, to be changed: they are copied up.
IMAGE = sorted(
    path
    for base, _, names in os.walk("/usr/share")
    for path in (os.path.join(base, name) for name in names if not name.endswith(".new"))
    if os.path.isfile(path) and not os.path.islink(path)
)


def content(run, number):
    return (f"{run} {number}\n" * (6000 if number % 13 == 0 else 200)).encode()


def place(run, number):
    base = PLACES[number // 4 % len(PLACES)]
    if number % 4 == 1:
        return os.path.join(base, f"{run}-{number}", "below", "file")
    if number % 4 == 2:
        return IMAGE[number // 4 % len(IMAGE)]
    return os.path.join(base, f"{run}-{number}")


def synced(number):
    return number % 4 != 3


def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def put(path, how, data, durably):
    with open(path, how) as file:
        file.write(data)
        file.flush()
        if durably:
            os.fsync(file.fileno())


def write(run, number):
    path = place(run, number)
    data = content(run, number)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not synced(number):
        return put(path, "wb", data, False)
    if number % 8 == 6:
        # As editors and package managers replace a file.
        put(path + ".new", "wb", data, True)
        os.rename(path + ".new", path)
    else:
        put(path, "ab" if number % 8 == 2 else "wb", data, True)
    directory = os.path.dirname(path)
    while True:
        sync(directory)
        if directory == "/":
            return
        directory = os.path.dirname(directory)


def there(run, number):
    try:
        with open(place(run, number), "rb") as file:
            return file.read().endswith(content(run, number))
    except OSError:
        return False


def hog(*_):
    taken = []
    while True:
        taken.append(b"x" * (1 << 20))


def main_write():
    signal.signal(signal.SIGUSR1, hog)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    print("ready to write", flush=True)
    signal.sigwait([signal.SIGUSR2])
    run = uuid.uuid4().hex[:8]
    number = 0
    while True:
        try:
            write(run, number)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            time.sleep(0.05)
            continue
        print(run, number, flush=True)
        number += 1
        time.sleep(0.004)


def main_verify(run, last):
    found = {"synced": 0, "lost": [], "unsynced": 0, "unsynced_lost": 0}
    # A later one of the same run may have changed the same file of the image.
    latest = {place(run, number): number for number in range(last + 1)}
    for number in latest.values():
        ok = there(run, number)
        if synced(number):
            found["synced"] += 1
            if not ok:
                found["lost"].append(place(run, number))
        else:
            found["unsynced"] += 1
            found["unsynced_lost"] += not ok
    print(json.dumps(found))


if sys.argv[1] == "write":
    main_write()
else:
    main_verify(sys.argv[2], int(sys.argv[3]))
