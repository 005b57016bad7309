import HostSystem
import TestSupport
import Testing

/// Truncated, flipped, extended and misnamed archives: always refused, never half taken for whole.
struct ArchiveDamageTests {
    /// Small enough to try every prefix.
    static func smallTar() -> [UInt8] {
        var tar = TarBuilder()
        tar.add("d/", type: "5", mode: 0o755)
        tar.add("d/a", content: Array("one".utf8))
        tar.add("zeros", content: [UInt8](repeating: 0, count: 2048))
        tar.add("é/", type: "5", mode: 0o755)
        tar.add("é/" + String(repeating: "l", count: 150), content: Array("two".utf8))
        tar.add("l", type: "2", link: "d/a")
        return tar.finished
    }

    static let compressors: [(program: [String], format: ArchiveFormat)] = [
        (["gzip", "-9"], .tarGzip), (["zstd", "-19"], .tarZstd), (["xz"], .tarXz), (["bzip2"], .tarBzip2),
    ]

    static func compress(_ bytes: [UInt8], _ program: [String]) throws -> [UInt8] {
        let scratch = try ScratchDirectory()
        try scratch.write("in", bytes)
        return try Program.check(program + ["-c", scratch("in")])
    }

    static func isRefused(_ attempt: Attempt) -> Bool {
        switch attempt.error {
        case .damaged, .wrongFormat, .unsupported, .refused, .limit: true
        default: false
        }
    }

    @Test("a tar cut at every 512 bytes, and around them")
    func tarPrefixes() throws {
        let whole = Self.smallTar()
        #expect(try Attempt(whole).result.isSuccess)
        for end in stride(from: 0, to: whole.count, by: 512) {
            for length in [end, end + 1, end + 511] where length < whole.count {
                #expect(
                    try Self.isRefused(Attempt(Array(whole.prefix(length)))),
                    "accepted \(length) of \(whole.count) bytes")
            }
        }
    }

    @Test("a pax tar by the system's tar cut at every 512 bytes", arguments: ["posix", "gnu"])
    func systemTarPrefixes(_ format: String) throws {
        let scratch = try ScratchDirectory()
        try scratch.write("s/" + String(repeating: "n", count: 120), "x")
        try scratch.write("s/é", "y")
        try Program.check(["truncate", "-s", "100k", scratch("s/hole")])
        try Program.check([
            "tar", "-c", "--sparse", "--format=" + format, "-b", "2", "-C", scratch("s"), "-f", scratch("a.tar"), ".",
        ])
        let whole = try FileReading.bytes(scratch("a.tar"), limit: 1 << 20)
        #expect(try Attempt(whole).result.isSuccess)
        // The last blocks are zeros, of which two make the end mark.
        let data = (whole.lastIndex { $0 != 0 } ?? 0) + 1
        let complete = (data + 511) / 512 * 512 + 1024
        for length in stride(from: 0, to: complete, by: 512) {
            #expect(
                try Self.isRefused(Attempt(Array(whole.prefix(length)))), "accepted \(length) of \(whole.count) bytes")
        }
    }

    @Test("compressed and cut at every byte", arguments: compressors)
    func compressedPrefixes(_ row: (program: [String], format: ArchiveFormat)) throws {
        let whole = try Self.compress(Self.smallTar(), row.program)
        #expect(try Attempt(whole, as: row.format, pieceSize: 13).result.isSuccess)
        for length in 0..<whole.count {
            #expect(
                try Self.isRefused(Attempt(Array(whole.prefix(length)), as: row.format)),
                "accepted \(length) of \(whole.count) bytes")
        }
    }

    @Test("compressed and flipped at every byte", arguments: compressors)
    func flipped(_ row: (program: [String], format: ArchiveFormat)) throws {
        let whole = try Self.compress(Self.smallTar(), row.program)
        let expected = Digest.sha256(whole)
        let good = try Attempt(whole, as: row.format)
        for index in whole.indices {
            var bytes = whole
            bytes[index] ^= 0x10
            // Some bits mean nothing to the contents (gzip's file name, codes that no symbol uses): then everything must be as it
            // was. The hash of the object sees those too.
            let attempt = try Attempt(bytes, as: row.format)
            if !Self.isRefused(attempt) {
                #expect(try Tree.listing(attempt.root) == Tree.listing(good.root), "accepted a flipped byte \(index)")
                try Program.check(["diff", "-r", "--no-dereference", good.root, attempt.root])
                let checked = try Attempt(bytes, as: row.format) { $0.expectedSHA256 = expected }
                #expect(checked.error == .checksumMismatch(expected: expected.hex, actual: Digest.sha256(bytes).hex))
            }
        }
    }

    @Test("gzip's CRC and length are checked", arguments: [8, 7, 6, 5, 4, 3, 2, 1])
    func gzipTrailer(_ fromEnd: Int) throws {
        var bytes = try Self.compress(Self.smallTar(), ["gzip"])
        bytes[bytes.count - fromEnd] ^= 1
        guard case .damaged = try Attempt(bytes, as: .tarGzip).error else {
            Issue.record("a bad gzip trailer was accepted")
            return
        }
    }

    @Test("something behind the end", arguments: compressors)
    func trailing(_ row: (program: [String], format: ArchiveFormat)) throws {
        let whole = try Self.compress(Self.smallTar(), row.program)
        for garbage in [
            [1], Array("garbage".utf8), [0, 0, 0, 0, 1], Array(whole.prefix(8)), Array(repeating: 7, count: 300_000),
        ] as [[UInt8]] {
            #expect(try Self.isRefused(Attempt(whole + garbage, as: row.format)), "accepted \(garbage.prefix(10))")
        }
        // A whole second archive behind the first is more than the first's end allows.
        #expect(try Self.isRefused(Attempt(whole + whole, as: row.format)))
        // gzip on a tape, xz by its format: zeros may follow.
        let padded = try Attempt(whole + [UInt8](repeating: 0, count: 512), as: row.format)
        #expect(padded.result.isSuccess == [.tarGzip, .tarXz].contains(row.format))
    }

    @Test("something behind a tar's end mark")
    func tarTrailing() throws {
        #expect(try Self.isRefused(Attempt(Self.smallTar() + [1])))
        #expect(try Self.isRefused(Attempt(Self.smallTar() + Self.smallTar())))
        #expect(try Attempt(Self.smallTar() + [UInt8](repeating: 0, count: 9 << 20)).result.isSuccess)
    }

    static func smallZip() throws -> [UInt8] {
        let scratch = try ScratchDirectory()
        try scratch.write("s/a", String(repeating: "one ", count: 50))
        try scratch.write("s/d/b", "two")
        try Files.symlink(target: "a", at: scratch("s/l"))
        try Program.check(["bash", "-c", "cd \"$0/s\" && zip -q -y -r ../a.zip .", scratch.path])
        return try FileReading.bytes(scratch("a.zip"), limit: 1 << 20)
    }

    @Test("a zip cut at every byte, at the start and the end")
    func zipPrefixes() throws {
        let whole = try Self.smallZip()
        #expect(try Attempt(whole, as: .zip, pieceSize: 11).result.isSuccess)
        for length in 0..<whole.count {
            #expect(
                try Self.isRefused(Attempt(Array(whole.prefix(length)), as: .zip)),
                "accepted \(length) of \(whole.count) bytes")
            if length > 0 { #expect(try Self.isRefused(Attempt(Array(whole.dropFirst(length)), as: .zip))) }
        }
        for garbage in [[0], [1], Array(repeating: 9, count: 70_000)] as [[UInt8]] {
            #expect(try Self.isRefused(Attempt(whole + garbage, as: .zip)))
            #expect(try Self.isRefused(Attempt(garbage + whole, as: .zip)))
        }
    }

    @Test("a zip with every byte of its contents flipped")
    func zipFlips() throws {
        let whole = try Self.smallZip()
        let expected = Digest.sha256(whole)
        for index in whole.indices {
            var bytes = whole
            bytes[index] ^= 0x40
            let attempt = try Attempt(bytes, as: .zip)
            // Times and attributes have no check in the format: contents and names do.
            if attempt.result.isSuccess {
                #expect(try attempt.text("a") == String(repeating: "one ", count: 50))
                #expect(try attempt.text("d/b") == "two")
                let checked = try Attempt(bytes, as: .zip) { $0.expectedSHA256 = expected }
                #expect(checked.error == .checksumMismatch(expected: expected.hex, actual: Digest.sha256(bytes).hex))
            }
        }
    }

    @Test("an object that is shorter or longer than promised")
    func promisedSize() throws {
        for format in [ArchiveFormat.tar, .tarGzip] {
            let bytes = format == .tar ? Self.smallTar() : try Self.compress(Self.smallTar(), ["gzip"])
            for difference: Int64 in [-1, 1] {
                guard
                    case .damaged = try Attempt(bytes, as: format, { $0.size = Int64(bytes.count) + difference }).error
                else {
                    Issue.record("accepted")
                    continue
                }
            }
        }
    }

    static let wrongContents: [(looks: String, bytes: [UInt8])] = [
        ("a 7-Zip archive", [0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c, 0, 4]),
        ("a RAR archive", Array("Rar!\u{1a}\u{7}".utf8)),
        ("an lrzip file", Array("LRZI\0\u{6}".utf8)), ("an mtree file", Array("#mtree\n./a type=file\n".utf8)),
        ("a web page", Array("\n<!DOCTYPE html><html><body>Login</body></html>".utf8)),
        ("a web page", Array("<html>".utf8)),
        ("an XML document", Array("<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code></Error>".utf8)),
        ("a JSON document", Array("{\"error\": true}".utf8)), ("plain text", Array("see elsewhere\n".utf8)),
        ("an empty file", []), ("a zip archive", [0x50, 0x4b, 3, 4] + [UInt8](repeating: 0, count: 600)),
        ("an lz4 file", [0x04, 0x22, 0x4d, 0x18, 0, 0]), ("an lzop file", [0x89] + Array("LZO\0".utf8)),
        ("a GRZip file", Array("GRZipII\0".utf8)), ("a cpio archive", Array("070701".utf8)),
        ("a program", [0x7f] + Array("ELF".utf8)),
        ("a zstd file", [0x28, 0xb5, 0x2f, 0xfd, 0]), ("nothing known", [1, 2, 3]),
    ]

    @Test("other formats under the name of .tar.gz", arguments: wrongContents)
    func misnamed(_ row: (looks: String, bytes: [UInt8])) throws {
        #expect(
            try Attempt(row.bytes, as: .tarGzip).error == .wrongFormat(expected: "a gzip file", looksLike: row.looks))
        // And inside a good gzip, where libarchive would see nothing but a stream.
        let inside = try Attempt(Self.compress(row.bytes, ["gzip"]), as: .tarGzip)
        #expect(inside.error == .wrongFormat(expected: "a tar archive inside a gzip file", looksLike: row.looks))
        #expect(try Files.names(in: inside.root).isEmpty)
    }

    @Test("each format under each other name", arguments: ArchiveFormat.allCases)
    func crossed(_ named: ArchiveFormat) throws {
        for row in Self.compressors where row.format != named {
            guard case .wrongFormat = try Attempt(Self.compress(Self.smallTar(), row.program), as: named).error else {
                Issue.record("\(row.format) passed for \(named)")
                continue
            }
        }
    }

    @Test("a source that fails passes its error on", arguments: [0, 100, 512, 3000, 4096])
    func sourceFails(_ length: Int) throws {
        struct Gone: Error {}
        let scratch = try ScratchDirectory()
        try Files.makeNewDirectory(scratch("root"), mode: 0o700)
        #expect(throws: Gone.self) {
            try ArchiveExtraction.run(
                into: scratch("root"), options: .init(format: .tar, size: nil), stop: .bounded(), progress: { _ in }
            ) { _ in TestByteSource(Array(Self.smallTar().prefix(length)), pieceSize: 100, failure: Gone()) }
        }
    }

    @Test(
        "data that carries no checksum is taken with a warning, unless a checksum lies beside it",
        arguments: [(["zstd", "--no-check"], ArchiveFormat.tarZstd), (["xz", "--check=none"], .tarXz)])
    func withoutChecks(_ row: (program: [String], format: ArchiveFormat)) throws {
        let bytes = try Self.compress(Self.smallTar(), row.program)
        #expect(try Attempt(bytes, as: row.format).result.get().warnings.count == 1)
        let vouched = try Attempt(bytes, as: row.format) { $0.expectedSHA256 = Digest.sha256(bytes) }
        #expect(try vouched.result.get().warnings.isEmpty)
        // The second frame alone without one is noticed too.
        let good = try Self.compress(Array(Self.smallTar().prefix(1024)), [row.program[0]])
        let rest = try Self.compress(Array(Self.smallTar().dropFirst(1024)), row.program)
        #expect(try Attempt(good + rest, as: row.format, pieceSize: 3).result.get().warnings.count == 1)
    }

    @Test("a window that would take a gigabyte of memory is refused")
    func window() throws {
        let scratch = try ScratchDirectory()
        try scratch.write("small.tar", Self.smallTar())
        // From a pipe zstd does not know the size and keeps the window it was told.
        let bytes = try Program.check([
            "bash", "-c", "cat \"$0\" | zstd -q --long=30 --ultra -22 -c", scratch("small.tar"),
        ])
        guard case .unsupported = try Attempt(bytes, as: .tarZstd).error else {
            Issue.record("accepted")
            return
        }
    }

    @Test("skippable frames, as pzstd writes them, are skipped")
    func skippableFrame() throws {
        let frame = try Self.compress(Self.smallTar(), ["zstd"])
        let skippable: [UInt8] = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]
        let result = try Attempt(skippable + frame + skippable, as: .tarZstd, pieceSize: 5).result.get()
        #expect(result.files == 3 && result.warnings.isEmpty)
        #expect(try Self.isRefused(Attempt(skippable, as: .tarZstd)))
    }

    @Test(
        "refused at the first entry, with much more to come: nothing hangs", arguments: [ArchiveFormat.tar, .tarGzip])
    func refusedEarly(_ format: ArchiveFormat) throws {
        var tar = TarBuilder()
        tar.add("../x", content: [1])
        for index in 0..<8 { tar.add("f\(index)", content: [UInt8](repeating: UInt8(index), count: 4 << 20)) }
        let bytes = format == .tar ? tar.finished : try Self.compress(tar.finished, ["gzip", "-1"])
        #expect(try Attempt(bytes, as: format).error == .refused(.parentInName, entry: "../x"))
    }

    @Test("a raised flag ends it")
    func stopped() throws {
        let scratch = try ScratchDirectory()
        try Files.makeNewDirectory(scratch("root"), mode: 0o700)
        let stop = StopFlag.bounded()
        #expect(throws: StopReason.signal(15)) {
            try ArchiveExtraction.run(
                into: scratch("root"), options: .init(format: .tar, size: nil), stop: stop,
                progress: { _ in stop.raise(signal: 15) }
            ) { _ in TestByteSource(Self.smallTar()) }
        }
    }
}
