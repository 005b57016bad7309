import Foundation
import HostSystem
import TestSupport
import Testing

/// Archives that are too much, and machines that have too little.
struct ArchiveLimitTests {
    @Test(
        "a bomb is stopped by its ratio, long before it is unpacked",
        arguments: [
            (["gzip", "-9"], ArchiveFormat.tarGzip), (["zstd", "-19"], .tarZstd), (["xz"], .tarXz),
            (["bzip2"], .tarBzip2),
        ])
    func ratio(_ row: (program: [String], format: ArchiveFormat)) throws {
        let scratch = try ScratchDirectory()
        try Program.check(["truncate", "-s", "400M", scratch("zeros")])
        try Program.check(
            ["bash", "-c", "cd \"$0\" && tar -cf - zeros | \"$@\" -c > bomb", scratch.path] + row.program)
        let attempt = try Attempt(FileReading.bytes(scratch("bomb"), limit: 8 << 20), as: row.format)
        #expect(attempt.error?.reason == ExtractionLimit.ratio(200).description, "\(attempt.result)")
        let made = try Files.status(attempt.root + "/zeros")?.size ?? 0
        #expect(made < 80 << 20)
    }

    @Test("a zip bomb is stopped by its ratio, and by what its table of contents states")
    func zipRatio() throws {
        let scratch = try ScratchDirectory()
        try Program.check(["truncate", "-s", "200M", scratch("zeros")])
        try Program.check(["bash", "-c", "cd \"$0\" && zip -q -9 a.zip zeros", scratch.path])
        let bytes = try FileReading.bytes(scratch("a.zip"), limit: 8 << 20)
        #expect(try Attempt(bytes, as: .zip).error == .limit(.ratio(200), entry: "zeros"))
        let capped = try Attempt(bytes, as: .zip) { $0.limits.bytes = ByteCount(100 << 20) }
        #expect(capped.error == .limit(.bytes(ByteCount(100 << 20)), entry: "zeros"))
        #expect(try Files.names(in: capped.root).isEmpty)
    }

    @Test("overlapping members of a zip (Fifield's bomb)")
    func overlappingZip() throws {
        let scratch = try ScratchDirectory()
        let script = """
            import sys, zipfile, struct
            z = zipfile.ZipFile(sys.argv[1], 'w'); z.writestr('a', b'x' * 100); z.writestr('b', b'x' * 100); z.close()
            d = bytearray(open(sys.argv[1], 'rb').read())
            second = d.rindex(b'PK\\x01\\x02')
            d[second + 42:second + 46] = struct.pack('<I', 0); d[second + 46:second + 47] = b'a'
            open(sys.argv[1], 'wb').write(d)
            """
        try Program.check(["python3", "-c", script, scratch("a.zip")])
        let attempt = try Attempt(FileReading.bytes(scratch("a.zip"), limit: 1 << 20), as: .zip)
        #expect(attempt.error == .damaged("members overlap", entry: "a"))
    }

    @Test(
        "sizes beyond reason",
        arguments: [
            ("octal", 0o77777777777), ("8 GiB", 8 << 30),
        ])
    func statedSize(_ row: (String, Int)) throws {
        var tar = TarBuilder()
        tar.add("big", content: [1], size: row.1)
        let attempt = try Attempt(tar.finished) { $0.limits.bytes = ByteCount(4 << 30) }
        #expect(attempt.error == .limit(.bytes(ByteCount(4 << 30)), entry: "big"))
    }

    @Test("base-256 sizes: negative and 8 EiB")
    func binarySizes() throws {
        for first: UInt8 in [0xff, 0x80] {
            var tar = TarBuilder()
            tar.add("big", content: [1])
            var bytes = tar.finished
            bytes[124] = first
            for index in 125..<136 { bytes[index] = first == 0xff ? 0xff : (index > 127 ? 0xff : 0) }
            bytes.replaceSubrange(148..<156, with: Array("        ".utf8))
            let sum = bytes.prefix(512).reduce(0) { $0 + Int($1) }
            let text = String(sum, radix: 8)
            bytes.replaceSubrange(
                148..<156, with: Array((String(repeating: "0", count: 6 - text.count) + text + "\0 ").utf8))
            #expect(try ArchiveDamageTests.isRefused(Attempt(bytes)), "accepted a size that begins with \(first)")
        }
    }

    @Test("a sparse file of 1 TiB is refused by its size")
    func sparse() throws {
        let scratch = try ScratchDirectory()
        // Not every file system of /tmp takes a terabyte; tmpfs and ext4 do.
        try Program.check(["truncate", "-s", "1T", scratch("hole")])
        try Program.check([
            "tar", "-c", "--sparse", "--format=posix", "-C", scratch.path, "-f", scratch("a.tar"), "hole",
        ])
        let bytes = try FileReading.bytes(scratch("a.tar"), limit: 1 << 20)
        #expect(try Attempt(bytes).error == .limit(.bytes(ByteCount(512 << 30)), entry: "hole"))
        let unbounded = try Attempt(bytes) { $0.limits.bytes = ByteCount(Int64.max) }
        guard case .noRoom = unbounded.error else {
            Issue.record("not refused: \(unbounded.result)")
            return
        }
    }

    @Test("entries, names, paths, depth")
    func counts() throws {
        var many = TarBuilder()
        for index in 0..<200 { many.add("f\(index)") }
        #expect(try Attempt(many.finished) { $0.limits.entries = 100 }.error == .limit(.entries(100), entry: nil))
        #expect(try Attempt(many.finished) { $0.limits.entries = 200 }.result.get().files == 200)

        var long = TarBuilder()
        long.add(String(repeating: "n", count: 256), content: [1])
        #expect(try Attempt(long.finished).error?.reason == ExtractionLimit.nameLength(255).description)

        var path = TarBuilder()
        path.add(Array(repeating: String(repeating: "p", count: 250), count: 262).joined(separator: "/"), content: [1])
        #expect(try Attempt(path.finished).error != nil)

        var deep = TarBuilder()
        deep.add(Array(repeating: "d", count: 2000).joined(separator: "/"), content: [1])
        #expect(try Attempt(deep.finished).error?.reason == ExtractionLimit.depth(256).description)

        var nested = TarBuilder()
        nested.add(Array(repeating: "d", count: 256).joined(separator: "/"), content: [1])
        let attempt = try Attempt(nested.finished)
        #expect(try attempt.result.get().directories == 255)
    }

    @Test("forty thousand empty entries in a thousand directories")
    func manyEntries() throws {
        var tar = TarBuilder()
        for folder in 0..<1000 {
            for file in 0..<40 { tar.add("\(folder % 7)/\(folder)/\(file)") }
        }
        let result = try Attempt(tar.finished).result.get()
        #expect(result.files == 40_000 && result.directories == 1007)
    }

    // MARK: The machine

    /// A file system of its own, unmounted at the end.
    final class Mount {
        let scratch: ScratchDirectory
        var path: String { scratch("mount") }
        var root: String { scratch("mount/root") }

        init(_ options: String) throws {
            try #require(Host.isSuperuser, "this test must run as root: it mounts a tmpfs")
            scratch = try ScratchDirectory()
            try Files.makeNewDirectory(scratch("mount"), mode: 0o755)
            try Program.check(["mount", "-t", "tmpfs", "-o", options, "amorce-test", path])
            try Files.makeNewDirectory(root, mode: 0o700)
        }

        deinit { _ = try? Program.run(["umount", "-l", path]) }
    }

    @Test("no room left", arguments: [ArchiveFormat.tarGzip, .tar])
    func outOfRoom(_ format: ArchiveFormat) throws {
        let mount = try Mount("size=1m")
        var tar = TarBuilder()
        let content = (0..<400_000).map { UInt8(truncatingIfNeeded: $0 / 64) }
        for index in 0..<6 { tar.add("f\(index)", content: content) }
        let bytes = format == .tar ? tar.finished : try ArchiveDamageTests.compress(tar.finished, ["gzip"])
        let attempt = try Attempt(bytes, as: format, in: mount.root)
        if format == .tar {
            // Known before the first byte.
            guard case .noRoom = attempt.error else {
                Issue.record("\(attempt.result)")
                return
            }
            #expect(try Files.names(in: mount.root).isEmpty)
        } else {
            #expect(attempt.hostError?.isOutOfRoom == true, "\(attempt.result)")
            #expect(attempt.hostError?.path.hasPrefix(mount.root + "/f") == true)
        }
        try Files.removeTree(mount.root)
        #expect(try Files.names(in: mount.path).isEmpty)
    }

    @Test("no inodes left")
    func outOfInodes() throws {
        let mount = try Mount("size=4m,nr_inodes=20")
        var tar = TarBuilder()
        for index in 0..<40 { tar.add("f\(index)", content: [1]) }
        let attempt = try Attempt(tar.finished, in: mount.root)
        #expect(attempt.hostError?.isOutOfRoom == true && attempt.hostError?.call == "open", "\(attempt.result)")

        let scratch = try ScratchDirectory()
        for index in 0..<40 { try scratch.write("s/f\(index)", "x") }
        try Program.check(["bash", "-c", "cd \"$0/s\" && zip -q -r ../a.zip .", scratch.path])
        try Files.removeTree(mount.root)
        try Files.makeNewDirectory(mount.root, mode: 0o700)
        let zip = try Attempt(FileReading.bytes(scratch("a.zip"), limit: 1 << 20), as: .zip, in: mount.root)
        guard case .noInodes(needed: 40, _) = zip.error else {
            Issue.record("\(zip.result)")
            return
        }
    }

    @Test("a read-only file system")
    func readOnly() throws {
        let mount = try Mount("size=1m")
        try Program.check(["mount", "-o", "remount,ro", mount.path])
        var tar = TarBuilder()
        tar.add("f", content: [1])
        let error = try Attempt(tar.finished, in: mount.root).hostError
        #expect(error?.isPermission == true && error?.errno == EROFS)
    }

    @Test("modes are exact whatever the umask", arguments: [UInt32(0), 0o077, 0o777])
    func umasks(_ mask: UInt32) async throws {
        // umask is the process's: a process of its own.
        await #expect(processExitsWith: .success) { [mask = mask as UInt32] in
            umask(mask)
            var tar = TarBuilder()
            tar.add("d/", type: "5", mode: 0o755)
            tar.add("w/", type: "5", mode: 0o777)
            tar.add("d/plain", content: [1], mode: 0o644)
            tar.add("d/run", content: [1], mode: 0o755)
            tar.add("d/open", content: [1], mode: 0o666)
            tar.add("implicit/secret", content: [1], mode: 0o600)
            let attempt = try Attempt(tar.finished)
            _ = try attempt.result.get()
            let modes: [(String, UInt32)] = [
                ("d", 0o755), ("w", 0o777), ("d/plain", 0o644), ("d/run", 0o755), ("d/open", 0o666),
                ("implicit", 0o755),
                ("implicit/secret", 0o600),
            ]
            for (name, mode) in modes {
                let found = try Files.status(attempt.root + "/" + name)?.mode
                precondition(found == mode, "\(name): \(String(found ?? 0, radix: 8))")
            }
        }
    }

    @Test("a default ACL does not change modes")
    func defaultACL() throws {
        let scratch = try ScratchDirectory()
        try Files.makeNewDirectory(scratch("root"), mode: 0o700)
        // user::rwx group::--- other::---, as system.posix_acl_default holds it (version 2).
        let script = """
            import os, struct, sys
            entries = (1, 7), (4, 0), (32, 0)
            acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', tag, mode, 0xffffffff) for tag, mode in entries)
            os.setxattr(sys.argv[1], 'system.posix_acl_default', acl)
            """
        try Program.check(["python3", "-c", script, scratch("root")])
        var tar = TarBuilder()
        tar.add("d/f", content: [1], mode: 0o644)
        _ = try Attempt(tar.finished, in: scratch("root")).result.get()
        #expect(try Files.status(scratch("root/d/f"))?.mode == 0o644)
        #expect(try Files.status(scratch("root/d"))?.mode == 0o755)
    }

    @Test("64 descriptors are enough, however deep and wide the tree is")
    func fewDescriptors() async throws {
        await #expect(processExitsWith: .success) {
            var limit = rlimit(rlim_cur: 64, rlim_max: 64)
            precondition(setrlimit(__rlimit_resource_t(7), &limit) == 0)
            var tar = TarBuilder()
            for round in 0..<3 {
                for depth in 1..<150 {
                    tar.add((0..<depth).map { "d\($0)" }.joined(separator: "/") + "/f\(round)", content: [1])
                }
            }
            let result = try Attempt(tar.finished).result.get()
            precondition(result.files == 447)
        }
    }
}
