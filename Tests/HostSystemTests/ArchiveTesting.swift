import HostSystem
import TestSupport

/// One attempt to unpack, with a file outside that must stay as it is.
struct Attempt {
    let scratch: ScratchDirectory
    let result: Result<ArchiveExtraction.Result, any Error>
    var root: String { scratch("work/root") }

    init(
        _ bytes: [UInt8], as format: ArchiveFormat = .tar, in base: String? = nil, pieceSize: Int = 256 << 10,
        _ change: (inout ArchiveExtraction.Options) -> Void = { _ in }
    ) throws {
        scratch = try ScratchDirectory()
        try Files.makeDirectories(scratch("work/root"), mode: 0o755)
        try Files.changeMode(scratch("work/root"), 0o700)
        try scratch.write("outside.txt", "untouched")
        try scratch.write("work/outside.txt", "untouched")
        var options = ArchiveExtraction.Options(format: format, size: Int64(bytes.count))
        change(&options)
        let place = base ?? scratch("work/root")
        result = Result {
            try ArchiveExtraction.run(into: place, options: options, stop: .bounded(), progress: { _ in }) {
                TestByteSource(bytes, from: $0, pieceSize: pieceSize)
            }
        }
    }

    var error: ArchiveError? {
        if case .failure(let error) = result { return error as? ArchiveError }
        return nil
    }

    var hostError: HostError? {
        if case .failure(let error) = result { return error as? HostError }
        return nil
    }

    /// Nothing beside the root was made, changed or removed.
    var isOutsideUntouched: Bool {
        get throws {
            try Files.names(in: scratch.path) == ["outside.txt", "work"]
                && Files.names(in: scratch("work")) == ["outside.txt", "root"]
                && FileReading.text(scratch("outside.txt"), limit: 100) == "untouched"
                && FileReading.text(scratch("work/outside.txt"), limit: 100) == "untouched"
        }
    }

    func text(_ relative: String) throws -> String { try FileReading.text(root + "/" + relative, limit: 1 << 20) }
}

enum Tree {
    /// Every name below a directory with its kind, mode, time, size and link target.
    static func listing(_ path: String) throws -> String {
        let output = try Program.check([
            "bash", "-c",
            "cd \"$0\" && find . -mindepth 1 -type d -printf '%P d %m %T@\\n' "
                + "-o -mindepth 1 -printf '%P %y %m %T@ %s %n %l\\n' | sort",
            path,
        ])
        return String(decoding: output, as: UTF8.self)
    }

    /// A small site with everything that a backup of one holds.
    static func makeSite(_ scratch: ScratchDirectory, _ name: String = "site") throws -> String {
        try scratch.write("\(name)/index.php", "<?php echo 1;\n")
        try scratch.write("\(name)/empty", "")
        try scratch.write("\(name)/bin/run", "#!/bin/sh\n", mode: 0o755)
        try scratch.write("\(name)/private/key", "k", mode: 0o600)
        try scratch.write("\(name)/var/é/日本.txt", "names")
        try scratch.write(
            "\(name)/var/" + String(repeating: "n", count: 200) + "/" + String(repeating: "m", count: 180), "long")
        try scratch.write("\(name)/big.bin", (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 13) })
        try Files.symlink(target: "index.php", at: scratch("\(name)/start"))
        try Files.symlink(target: "../index.php", at: scratch("\(name)/bin/up"))
        try Files.symlink(target: "not/here/yet", at: scratch("\(name)/dangling"))
        try Program.check(["ln", scratch("\(name)/index.php"), scratch("\(name)/bin/hard")])
        try Program.check(["truncate", "-s", "3M", scratch("\(name)/sparse")])
        try Program.check([
            "dd", "if=/dev/zero", "of=" + scratch("\(name)/sparse"), "bs=1", "count=1", "seek=1000000", "conv=notrunc",
        ])
        try Files.changeMode(scratch("\(name)/private"), 0o700)
        try Program.check([
            "touch", "-d", "2020-02-29T12:34:56.789Z", scratch("\(name)/index.php"), scratch("\(name)/var"),
        ])
        try Program.check(["touch", "-h", "-d", "2019-01-01T00:00:00Z", scratch("\(name)/start")])
        return scratch(name)
    }
}
