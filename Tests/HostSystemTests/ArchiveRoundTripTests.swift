import HostSystem
import TestSupport
import Testing

/// What the system's own tools wrote comes out as it went in.
struct ArchiveRoundTripTests {
    let scratch: ScratchDirectory
    let site: String

    init() throws {
        scratch = try ScratchDirectory()
        site = try Tree.makeSite(scratch)
    }

    @Test(
        "tar of every compression",
        arguments: [
            ("a.tar", [], ArchiveFormat.tar), ("a.tar.gz", ["-z"], .tarGzip), ("a.tgz", ["-z"], .tarGzip),
            ("a.tar.zst", ["--zstd"], .tarZstd), ("a.tar.xz", ["-J"], .tarXz), ("a.tar.bz2", ["-j"], .tarBzip2),
        ], [["--format=posix"], ["--format=posix", "--sparse"], ["--format=posix", "-b", "1"]])
    func tar(_ row: (name: String, flags: [String], format: ArchiveFormat), _ flags: [String]) throws {
        #expect(ArchiveFormat(name: row.name) == row.format)
        try Program.check(["tar", "-c", "-C", site, "-f", scratch(row.name)] + row.flags + flags + ["."])
        let bytes = try FileReading.bytes(scratch(row.name), limit: 64 << 20)
        let attempt = try Attempt(bytes, as: row.format)
        let result = try attempt.result.get()
        #expect(try Tree.listing(attempt.root) == Tree.listing(site))
        try Program.check(["diff", "-r", "--no-dereference", site, attempt.root])
        #expect(result.sha256 == Digest.sha256(bytes))
        #expect(result.compressedBytes == Int64(bytes.count))
        #expect(result.links == 4)
        #expect(result.warnings.count == (row.format == .tar ? 1 : 0))
    }

    @Test("GNU and ustar headers, whole seconds", arguments: ["gnu", "oldgnu"])
    func oldFormats(_ format: String) throws {
        try Program.check(["bash", "-c", "find \"$0\" -exec touch -h -d '2020-01-01 00:00:00Z' {} +", site])
        try Program.check(["tar", "-c", "--sparse", "--format=" + format, "-C", site, "-f", scratch("a.tar"), "."])
        let attempt = try Attempt(FileReading.bytes(scratch("a.tar"), limit: 64 << 20))
        _ = try attempt.result.get()
        #expect(try Tree.listing(attempt.root) == Tree.listing(site))
        try Program.check(["diff", "-r", "--no-dereference", site, attempt.root])
    }

    @Test("zip by zip(1), stored and deflated", arguments: ["-0", "-9"])
    func zip(_ level: String) throws {
        // zip keeps whole seconds of files, and hard links as files.
        try Files.remove(site + "/bin/hard")
        try Program.check(["bash", "-c", "find \"$0\" -exec touch -h -d '2020-01-01 00:00:00Z' {} +", site])
        try Program.check(["bash", "-c", "cd \"$0\" && zip -q -r -y \"$1\" \"$2\" .", site, level, scratch("a.zip")])
        let bytes = try FileReading.bytes(scratch("a.zip"), limit: 64 << 20)
        let attempt = try Attempt(bytes, as: .zip)
        let result = try attempt.result.get()
        #expect(try Tree.listing(attempt.root) == Tree.listing(site))
        try Program.check(["diff", "-r", "--no-dereference", site, attempt.root])
        #expect(result.sha256 == Digest.sha256(bytes))
        #expect(result.warnings.isEmpty)
    }

    @Test("zip by Python, to a pipe (sizes behind the contents) and as zip64", arguments: ["pipe", "zip64"])
    func pythonZip(_ kind: String) throws {
        let script = """
            import sys, zipfile
            kind, out = sys.argv[1], sys.argv[2]
            class Pipe:
                def __init__(self, f): self.f = f
                def write(self, b): return self.f.write(b)
                def flush(self): self.f.flush()
            with open(out, 'wb') as f:
                with zipfile.ZipFile(Pipe(f) if kind == 'pipe' else f, 'w', zipfile.ZIP_DEFLATED) as z:
                    for name in ('plain.txt', 'd/é.txt'):
                        with z.open(name, 'w', force_zip64=(kind == 'zip64')) as m: m.write(b'hello ' * 1000)
            """
        try Program.check(["python3", "-c", script, kind, scratch("a.zip")])
        let attempt = try Attempt(FileReading.bytes(scratch("a.zip"), limit: 1 << 20), as: .zip)
        let result = try attempt.result.get()
        #expect(result.files == 2 && result.directories == 1 && result.bytes == 12000)
        #expect(try attempt.text("d/é.txt") == String(repeating: "hello ", count: 1000))
    }

    @Test("several members or frames are one stream", arguments: ["gzip", "zstd", "xz", "bzip2"])
    func severalMembers(_ program: String) throws {
        let formats: [String: ArchiveFormat] = ["gzip": .tarGzip, "zstd": .tarZstd, "xz": .tarXz, "bzip2": .tarBzip2]
        let format = try #require(formats[program])
        let command = """
            cd "$0" && tar -cf a.tar -C site . && split -n 3 a.tar part. && for p in part.*; do $1 -c $p >> joined; done
            cat part.aa part.ab > most && $1 -c part.aa > missing && $1 -c part.ab >> missing
            """
        try Program.check(["bash", "-c", command, scratch.path, program])
        for pieceSize in [7, 4096, 1 << 20] {
            let attempt = try Attempt(
                FileReading.bytes(scratch("joined"), limit: 64 << 20), as: format, pieceSize: pieceSize)
            _ = try attempt.result.get()
            try Program.check(["diff", "-r", "--no-dereference", site, attempt.root])
        }
        // The last member missing: the compression is whole, the tar is not.
        let cut = try Attempt(FileReading.bytes(scratch("missing"), limit: 64 << 20), as: format)
        guard case .damaged = cut.error else {
            Issue.record("accepted: \(cut.result)")
            return
        }
    }

    @Test("strip-components counts as GNU tar does", arguments: [0, 1, 2, 3])
    func strip(_ count: Int) throws {
        try Program.check(["tar", "-cf", scratch("a.tar"), "-C", site, "--exclude=up", "./bin", "var", "index.php"])
        let attempt = try Attempt(FileReading.bytes(scratch("a.tar"), limit: 64 << 20)) { $0.stripComponents = count }
        try Files.makeNewDirectory(scratch("reference"), mode: 0o755)
        let reference = try Program.run([
            "tar", "-xf", scratch("a.tar"), "-C", scratch("reference"), "--strip-components=\(count)",
        ])
        #expect(reference.isSuccess == attempt.result.isSuccess)
        if reference.isSuccess {
            try Program.check(["diff", "-r", "--no-dereference", scratch("reference"), attempt.root])
        }
    }

    @Test("an earlier member appended anew: the last one wins")
    func appended() throws {
        try Program.check(["tar", "-cf", scratch("a.tar"), "-C", site, "."])
        try scratch.write("site/index.php", "second")
        try Program.check(["tar", "-rf", scratch("a.tar"), "-C", site, "./index.php"])
        let attempt = try Attempt(FileReading.bytes(scratch("a.tar"), limit: 64 << 20))
        _ = try attempt.result.get()
        #expect(try attempt.text("index.php") == "second")
        // As with tar: the hard link keeps the earlier contents.
        #expect(try attempt.text("bin/hard") == "<?php echo 1;\n")
    }

    @Test("owner from the caller, set-id bits gone")
    func ownerAndBits() throws {
        try #require(Host.isSuperuser, "this test must run as root")
        var tar = TarBuilder()
        tar.add("d/", type: "5", mode: 0o2770)
        tar.add("d/f", content: [1], mode: 0o6755)
        tar.add("d/ro", content: [1], mode: 0o444)
        tar.add("d/l", type: "2", link: "f")
        let attempt = try Attempt(tar.finished) { $0.owner = (owner: 12345, group: 54321) }
        _ = try attempt.result.get()
        let modes: [(String, UInt32)] = [("d", 0o770), ("d/f", 0o755), ("d/ro", 0o644), ("d/l", 0o777)]
        for (name, mode) in modes {
            let status = try #require(try Files.status(attempt.root + "/" + name))
            #expect(status.mode == mode && status.owner == 12345 && status.group == 54321, "\(name): \(status)")
        }
        #expect(try Files.status(attempt.root)?.owner == 0)
    }
}

extension Result {
    var isSuccess: Bool {
        if case .success = self { return true }
        return false
    }
}
