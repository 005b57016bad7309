"""The pipelines that people use today, each with the best flags known for it, and amorce's.

Every one restores as root what root owns, so ``tar`` need not set owners. Variables: ``$to`` the folder to restore
into, ``$source`` the tree, ``$own`` and ``$own_file`` the address of amorce's backups in the store and on the local
disk, ``$repository`` and ``$restic_cache`` restic's, ``$manifest`` and ``$data`` what limit.c reads, ``$threads`` the
number of processors.
"""

from amorcebench.measure import Side

AMORCE = "amorce"
LIMIT = "limit: create the files"
AWS_GZIP = "aws | tar xz"
AWS_ZSTD = "aws | zstd | tar"
RESTIC = "restic"
TAR_ZSTD_AWS = "tar | zstd -T0 | aws"

AWS = "aws s3 cp --only-show-errors"
RSYNC_PORT = 8730
RESTIC_COMMAND = 'restic --quiet --cache-dir "$restic_cache" --option s3.connections=16 --repo "$repository"'


def download(key: str) -> dict[str, str]:
    return {
        "aws": f"{AWS} s3://bench/{key} -",
        "s5cmd": f"s5cmd cat s3://bench/{key}",
        "rclone": f"rclone cat --buffer-size 64M store:bench/{key}",
    }


def restore_zstd() -> list[Side]:
    return [
        Side(f"{name} | zstd | tar", f"{command} | zstd --decompress --stdout | untar")
        for name, command in download("site.tar.zst").items()
    ]


def restore_gzip() -> list[Side]:
    """``tar xz`` as it is, and with the fastest decoders that Debian has."""
    commands = download("site.tar.gz")
    return [
        Side(
            AWS_GZIP,
            f'{commands["aws"]} | tar --extract --gzip --preserve-permissions --no-same-owner --directory="$to"',
        ),
        Side("s5cmd | pigz | tar", f"{commands['s5cmd']} | pigz --decompress --stdout | untar"),
        *(
            Side(f"{name} | igzip | tar", f"{command} | igzip --decompress --stdout | untar")
            for name, command in commands.items()
        ),
    ]


def restore_restic(source: str) -> Side:
    """restic restores a tree below the whole path that it was saved from.

    The cache begins empty, as on a new instance; without any, restic asks for the folders one at a time.
    """
    script = (
        f'restic_cache=$(mktemp --directory); {RESTIC_COMMAND} restore latest --target "$to"; rm -r "$restic_cache"'
    )
    return Side(RESTIC, script, below=source.lstrip("/"))


def restore_rsync() -> Side:
    return Side(
        "rsync from a daemon",
        f'rsync --archive --hard-links --whole-file rsync://127.0.0.1:{RSYNC_PORT}/site/ "$to/"',
        reads_source=True,
    )


def restore_own() -> Side:
    return Side(AMORCE, 'amorce restore --from "$own" --to "$to"')


def restore_own_local() -> Side:
    return Side(AMORCE, 'amorce restore --from "$own_file" --to "$to" --threads "$threads"')


def restore_own_archive(suffix: str) -> Side:
    return Side(AMORCE, f'amorce restore --from "s3://bench/site.{suffix}" --to "$to"')


def create_files() -> Side:
    return Side(LIMIT, 'limit "$manifest" "$data" "$to" "$threads"')


# Backups. ``$prefix`` is a folder of the bucket that no other side and no other round uses.

OWN_BACKUP = Side(AMORCE, 'amorce backup --app bench --from "$source" --to "s3://bench/$prefix/"', reads_source=True)
OWN_RESTORE = Side(AMORCE, 'amorce restore --from "s3://bench/$prefix/" --to "$to"')
OWN_LOCAL_BACKUP = Side(AMORCE, 'amorce backup --app bench --from "$source" --to "$own_file"', reads_source=True)

TAR = 'tar --create --blocking-factor=512 --directory="$source" . | zstd --threads=0 --stdout'
TAR_BACKUPS = [
    Side(TAR_ZSTD_AWS, f"{TAR} | {AWS} - s3://bench/$prefix/site.tar.zst", reads_source=True),
    Side("tar | zstd -T0 | s5cmd", f"{TAR} | s5cmd pipe s3://bench/$prefix/site.tar.zst", reads_source=True),
    Side("tar | zstd -T0 | rclone", f"{TAR} | rclone --quiet rcat store:bench/$prefix/site.tar.zst", reads_source=True),
]
TAR_RESTORE = Side(
    "s5cmd | zstd | tar", "s5cmd cat s3://bench/$prefix/site.tar.zst | zstd --decompress --stdout | untar"
)

RESTIC_INITIALISE = Side(RESTIC, f"{RESTIC_COMMAND} init")
RESTIC_BACKUP = Side(RESTIC, f'{RESTIC_COMMAND} backup "$source"', reads_source=True)
