import Foundation
import HostSystem
import Synchronization
import TestSupport
import Testing

@testable import Backups

final class Warnings: Sendable {
    private let number = Atomic<Int>(0)
    var count: Int { number.load(ordering: .relaxed) }
    func add() { number.wrappingAdd(1, ordering: .relaxed) }
}

struct RestoreArchiveTests {
    let scratch: ScratchDirectory
    let store: TestFolderStore

    init() throws {
        scratch = try ScratchDirectory()
        try scratch.write("site/index.php", "<?php\n")
        try scratch.write("site/a/b", String(repeating: "text ", count: 10_000))
        try Files.makeNewDirectory(scratch("store"), mode: 0o755)
        try Files.makeNewDirectory(scratch("root"), mode: 0o700)
        store = TestFolderStore(scratch("store"))
    }

    private func pack(_ name: String) throws -> StoredObject {
        try Program.check(["tar", "-caf", scratch("store/" + name), "-C", scratch("site"), "."])
        return try #require(try store.stat(key: name, stop: .bounded()))
    }

    private func restore(
        _ object: StoredObject, _ options: RestoreArchive.Options = .init()
    ) throws -> RestoreArchive.Result {
        try RestoreArchive(store: store, log: .silent)
            .restore(object, into: scratch("root"), options: options, stop: .bounded(), progress: { _ in })
    }

    @Test("a backup with its checksum", arguments: ["x.tar.zst", "x.tar.gz", "x.tar"])
    func good(_ name: String) throws {
        let object = try pack(name)
        try Program.check(["bash", "-c", "cd \"$0\" && sha256sum \"$1\" > \"$1.sha256\"", store.folder, name])
        let restore = RestoreArchive(store: store, log: .silent)
        let sum = try #require(try restore.checksumBeside(object, stop: .bounded()))
        let seen = Warnings()
        let result = try restore.restore(
            object, into: scratch("root"), options: .init(expectedSHA256: sum), stop: .bounded()
        ) { if $0.totalBytes == object.size { seen.add() } }
        #expect(result.sha256 == sum.hex && result.files == 2 && result.directories == 1 && result.bytes == 50_006)
        #expect(result.compressedBytes == object.size && result.skipped.isEmpty && result.warnings.isEmpty)
        #expect(seen.count > 0)
        try Program.check(["diff", "-r", scratch("site"), scratch("root")])
    }

    @Test("another checksum refuses it")
    func mismatch() throws {
        let object = try pack("x.tar.gz")
        let actual = Digest.sha256(try FileReading.bytes(scratch("store/x.tar.gz"), limit: 1 << 20)).hex
        #expect(
            throws: RestoreError.checksumMismatch(
                key: "x.tar.gz", expected: String(repeating: "00", count: 32), actual: actual)
        ) {
            try restore(object, .init(expectedSHA256: [UInt8](repeating: 0, count: 32)))
        }
    }

    @Test("an archive without a file, an empty object, an unknown suffix")
    func nothingInIt() throws {
        try Program.check(["tar", "-cf", scratch("store/none.tar"), "-T", "/dev/null"])
        try scratch.write("store/empty.tar.gz", "")
        try scratch.write("store/x.rar", "Rar!")
        for name in ["none.tar", "empty.tar.gz", "x.rar"] {
            let object = try #require(try store.stat(key: name, stop: .bounded()))
            #expect(throws: RestoreError.self) { try restore(object) }
        }
    }

    @Test("errors say which archive and which entry")
    func messages() throws {
        var tar = TarBuilder()
        tar.add("evil", type: "2", link: "/etc/passwd")
        try scratch.write("store/x.tar", tar.finished)
        let object = try #require(try store.stat(key: "x.tar", stop: .bounded()))
        #expect(throws: RestoreError.refusedEntry(key: "x.tar", reason: .absoluteLinkTarget, entry: "evil")) {
            try restore(object)
        }
    }

    static let sum = String(repeating: "ab", count: 32)

    @Test(
        "checksum files",
        arguments: [
            "\(sum)\n", sum, "\(sum)  x.tar\n", "\(sum) *x.tar\n", "\(sum)  ./x.tar\n",
            "\(sum.uppercased())  /var/b/x.tar\r\n",
            "\(String(repeating: "0", count: 64))  other.tar\n\(sum)  x.tar\n",
        ])
    func checksums(_ text: String) throws {
        #expect(
            try RestoreArchive.checksum(in: Array(text.utf8), for: "b/x.tar", file: "f")
                == [UInt8](repeating: 0xab, count: 32))
    }

    @Test(
        "malformed checksum files are errors, not absence",
        arguments: [
            "", "\n", "deadbeef\n", "\(sum)  other.tar\n", "\(sum)x  x.tar", "<html>", "\(sum)\n\(sum)\n", "\(sum)ab\n",
            "x.tar \(sum)",
        ])
    func badChecksums(_ text: String) throws {
        #expect(throws: RestoreError.self) {
            try RestoreArchive.checksum(in: Array(text.utf8), for: "b/x.tar", file: "f")
        }
    }

    @Test("no checksum beside it")
    func noChecksum() throws {
        let object = try pack("x.tar")
        #expect(try RestoreArchive(store: store, log: .silent).checksumBeside(object, stop: .bounded()) == nil)
        // Nothing vouches for a plain tar then.
        #expect(try restore(object).warnings.count == 1)
    }

    @Test("memory stays below 64 MiB however large the archive is", arguments: ["zst", "gz"])
    func memory(_ compression: String) async throws {
        // A process of its own, whose peak is the restore's. The archive: incompressible blocks, repeated too far apart for the
        // compressor, so that the compressed stream is long too.
        await #expect(processExitsWith: .success) { [compression] in
            let scratch = try ScratchDirectory()
            try Files.makeNewDirectory(scratch("root"), mode: 0o700)
            let program = compression == "zst" ? "zstd -1 -q" : "gzip -1"
            let script = """
                cd "$0" && mkdir site && head -c 20000000 /dev/urandom > block
                for i in $(seq 8); do cat block block > site/f$i; done
                tar -cf - site | \(program) > x.tar.\(compression) && rm -r site
                """
            try Program.check(["bash", "-c", script, scratch.path])
            let store = TestFolderStore(scratch.path)
            guard let object = try store.stat(key: "x.tar." + compression, stop: .bounded()) else {
                preconditionFailure()
            }
            func memory(_ field: String) throws -> Int {
                let text = try FileReading.text("/proc/self/status", limit: 1 << 16)
                let line = text.split(separator: "\n").first { $0.hasPrefix(field + ":") } ?? ""
                return Int(line.filter(\.isNumber)) ?? 0
            }
            let before = try memory("VmRSS")
            // 5: the peak is set back to what it is now (proc(5), clear_refs).
            precondition(Host.write(Array("5".utf8), descriptor: open("/proc/self/clear_refs", O_WRONLY)))
            let result = try RestoreArchive(store: store, log: .silent)
                .restore(object, into: scratch("root"), options: .init(), stop: .bounded(), progress: { _ in })
            precondition(result.bytes == 320_000_000)
            let grown = try memory("VmHWM") - before
            precondition(grown < 64 << 10, "grew by \(grown) kB")
        }
    }
}
