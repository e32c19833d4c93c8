"""Stores through pyarrow: connections, files read and written whole, and errors in plain words."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from degan_search.system.errors import UserError
from degan_search.system.whole_files import HIDDEN

if TYPE_CHECKING:
    import pyarrow.fs as pafs

CONNECT_TIMEOUT, REQUEST_TIMEOUT = 5.0, 10.0
"""Seconds without a byte from S3 after which one try is given up."""
CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, if there is one) of an account that may "
    "read and write there; for a store that is not Amazon's also AWS_ENDPOINT_URL, or in the address "
    "?endpoint_override=HOST:PORT&scheme=http"
)
PERMANENT = {
    r"NO_SUCH_BUCKET|NoSuchBucket|[Bb]ucket '[^']*' not found": "there is no such bucket: correct the address, or make "
    "the bucket first",
    r"REQUEST_TIME_TOO_SKEWED|RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    r"HTTP status 301|PermanentRedirect|AuthorizationHeaderMalformed": "the bucket is in another region: set "
    "AWS_REGION, or in the address ?region=NAME",
    r"INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN|EXPIRED_TOKEN|ExpiredToken|InvalidToken|"
    r"[Uu]nauthenticated": f"the credentials are wrong: {CREDENTIALS}",
    r"ACCESS_DENIED|HTTP status 40[13]|[Pp]ermission ?[Dd]enied|PERMISSION_DENIED": f"access is denied: {CREDENTIALS}",
    r"wrong version number|WRONG_VERSION_NUMBER|curlCode: 60\b": "it does not speak https with a known certificate: in "
    "the address, add &scheme=http, or tls_ca_file_path=FILE",
    r"libjvm|libhdfs": "Hadoop is needed on this machine: set JAVA_HOME, HADOOP_HOME and CLASSPATH",
    r"HTTP status 4(?!08|29)\d\d": "it refuses the request",
}
"""Errors of a store that trying again does not cure, as regular expressions, each with what would be right."""

_ATOMIC = ("s3", "gcs", "abfs")
"""File systems that show an object only when it is complete; in others a hidden file is written, then renamed."""


def connect(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of an address and the path in it; there is one connection pool for each bucket or host.

    Raises:
        OSError, pyarrow.ArrowException: what `reason` explains.
    """
    parts = urlsplit(uri)
    files, base = connection(parts.scheme, parts.netloc, parts.query)
    path = unquote(parts.path).strip("/")
    return files, f"{base}/{path}" if path else base


@functools.lru_cache(maxsize=32)
def connection(scheme: str, netloc: str, query: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a bucket or host and the path of its root, kept for further calls."""
    from pyarrow import fs

    if scheme == "s3":
        return _s3(netloc, s3_options(query))
    if scheme in ("gs", "gcs") and "retry_limit_seconds" not in query:
        # By default it tries for 15 minutes without a message.
        query = f"{query}&retry_limit_seconds=10".lstrip("&")
    files, base = fs.FileSystem.from_uri(f"{scheme}://{netloc}/" + (f"?{query}" if query else ""))
    return files, base.rstrip("/")


def s3_options(query: str) -> dict[str, str]:
    """Return the options in an s3:// address, with the environment's endpoint if the address has none."""
    options = dict(parse_qsl(query))
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if url and "endpoint_override" not in options:
        parts = urlsplit(url)
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    return options


def _s3(netloc: str, options: dict[str, str]) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a bucket, which has to exist: S3 reports a missing bucket as a missing file."""
    from pyarrow import fs

    account, _, bucket = netloc.rpartition("@")
    key, _, secret = account.partition(":")
    elsewhere = "endpoint_override" in options
    region = options.pop("region", None) or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    files = fs.S3FileSystem(
        access_key=unquote(key) or None,
        secret_key=unquote(secret) or None,
        region=region or ("us-east-1" if elsewhere else fs.resolve_s3_region(bucket)),
        connect_timeout=CONNECT_TIMEOUT,
        request_timeout=REQUEST_TIMEOUT,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),  # RemotePlace tries again, and says so
        allow_delayed_open=True,  # one request for a file
        background_writes=False,
        **options,
    )
    try:
        found = files.get_file_info(bucket).type
    except OSError as error:
        if not re.search(r"ACCESS_DENIED|HTTP status 403", str(error)):
            raise
        return files, bucket  # an account may have access to files but not to this request
    if found == fs.FileType.NotFound:
        raise OSError(f"Bucket '{bucket}' not found")
    return files, bucket


def write(files: pafs.FileSystem, path: str, data: bytes) -> None:
    """Write or replace a file: readers see all of it, or what was there before, or none."""
    if files.type_name in _ATOMIC:
        with files.open_output_stream(path) as stream:
            stream.write(data)
        return
    folder, _, name = path.rpartition("/")
    hidden = f"{folder}/{HIDDEN}{secrets.token_hex(4)}-{name}"
    files.create_dir(folder, recursive=True)
    try:
        with files.open_output_stream(hidden) as stream:
            stream.write(data)
        try:
            files.move(hidden, path)
        except OSError:  # HDFS does not rename to a name that is there
            files.delete_file(path)
            files.move(hidden, path)
    except BaseException:
        with contextlib.suppress(OSError):
            files.delete_file(hidden)
        raise


def read(files: pafs.FileSystem, path: str) -> bytes:
    """Return a file's bytes, never a mixture of two versions."""
    while True:
        with files.open_input_file(path) as file:
            data: bytes = file.read()
            before = file.size(), file.metadata()
        # pyarrow asks for the size first: if the file is replaced before it reads, it cuts the bytes or adds zeros.
        with files.open_input_file(path) as file:
            if (file.size(), file.metadata()) == before:
                return data


def stamps(files: pafs.FileSystem, path: str) -> dict[str, tuple[int, int]]:
    """Return size and time of the last change, in seconds, of each file under a folder by its name.

    A path that is a file gives that file by the name ''.
    """
    from pyarrow import fs

    about = files.get_file_info(path)
    infos = [about]
    if about.type == fs.FileType.Directory:
        infos = files.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
    return {
        # Whole seconds: some stores give the fraction only in listings.
        info.path[len(path) + 1 :]: (info.size, (info.mtime_ns or 0) // 10**9)
        for info in infos
        if info.type == fs.FileType.File
    }


def reason(error: Exception, where: str) -> str:
    """Return what a store said, if trying again may help; `where` names the file in messages.

    Raises:
        UserError: trying again does not help; says what would be right.
        OSError: a disk refused, such as a full one.
    """
    said = _said(error)
    for pattern, advice in PERMANENT.items():
        if re.search(pattern, str(error)):
            raise UserError(f"{where}: {advice} ({said})") from None
    if isinstance(error, ConnectionError | TimeoutError):
        return said
    if not isinstance(error, OSError):
        raise UserError(f"{where}: {said}") from None
    if error.errno is not None:
        raise error
    return said


def _said(error: Exception) -> str:
    """Return the informative part of a message of pyarrow's."""
    text = " ".join(str(error).splitlines()[:1]) or repr(error)
    if found := re.search(r"AWS Error (\S+)(?: \(.*?\))? during \w+ operation: (.*)", text):
        kind, said = found.groups()
        said = re.sub(r"\s*\(Request ID:.*?\)|curlCode: \d+, ", "", said).rpartition("Details: ")[2]
        text = kind if "No response body" in said else said
    return text.strip(" .")
