import Foundation
import Glibc
import TestSupport
import Testing

@testable import HostSystem

struct FileReadingTests {
    let scratch: ScratchDirectory

    init() throws {
        scratch = try ScratchDirectory()
        try scratch.write("file", "text")
    }

    @Test("a file, and a symlink to one")
    func regular() throws {
        try Files.symlink(target: "file", at: scratch("link"))
        for name in ["file", "link"] { #expect(try FileReading.text(scratch(name), limit: 4) == "text") }
        #expect(throws: FileReading.TooLarge.self) { try FileReading.bytes(scratch("file"), limit: 3) }
        #expect(try FileReading.bytesIfPresent(scratch("none"), limit: 4) == nil)
        #expect(throws: HostError("read", scratch.path, errno: EISDIR)) {
            try FileReading.bytesIfPresent(scratch.path, limit: 4)
        }
    }

    @Test("what would be waited for is refused, also behind a symlink")
    func special() throws {
        #expect(mkfifo(scratch("fifo"), 0o600) == 0)
        try Program.check([
            "python3", "-c", "import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])", scratch("socket"),
        ])
        try Files.symlink(target: "fifo", at: scratch("link"))
        try Files.symlink(target: "/dev/zero", at: scratch("zero"))
        for name in ["fifo", "socket", "link", "zero"] {
            let error = FileReading.NotRegular(path: scratch(name))
            #expect(throws: error) { try FileReading.bytesIfPresent(scratch(name), limit: 1 << 20) }
            #expect(error.description.hasSuffix("/\(name) is no regular file"))
        }
    }

    @Test("the kernel's files, the null device, and a pipe that is meant")
    func meant() throws {
        try Files.symlink(target: "/proc/self/status", at: scratch("status"))
        for path in ["/proc/self/status", scratch("status")] {
            #expect(try FileReading.text(path, limit: 64 << 10).contains("\nUmask:"))
        }
        try Files.symlink(target: "/dev/null", at: scratch("masked"))
        for path in ["/dev/null", scratch("masked")] { #expect(try FileReading.bytes(path, limit: 0) == []) }
        let pipe = Pipe()
        pipe.fileHandleForWriting.write(Data("told".utf8))
        try pipe.fileHandleForWriting.close()
        #expect(try FileReading.text("/dev/fd/\(pipe.fileHandleForReading.fileDescriptor)", limit: 4) == "told")
    }
}
