import Foundation
import Synchronization
import TestSupport
import Testing

@testable import BootSequence
@testable import HostSystem

/// A source, a release folder and an rsync daemon of a test's own.
struct DeltaBench {
    let scratch: ScratchDirectory
    let layout: HostLayout
    var source: String { scratch("source") }
    var release: String { scratch("release") }
    static let app = "boutique"

    init() throws {
        scratch = try ScratchDirectory()
        layout = HostLayout(root: scratch("root"))
        try scratch.write("source/.amorce-site", "boutique\n")
        try scratch.write("source/index.php", "<?php echo 2;\n")
        try scratch.write("source/lib/a.php", "a")
        try scratch.write("source/lib/b.php", "b")
        for number in 1...7 { try scratch.write("source/pages/\(number).html", "page \(number)") }
        try Program.check(["cp", "-a", source + "/.", release])
        try Files.remove(release + "/.amorce-site")
    }

    func daemon(_ extra: String = "", modules: [String: String] = [:], user: String = "root") throws -> RsyncDaemon {
        try RsyncDaemon(
            scratch, modules: ["site": "path = \(source)\n" + extra].merging(modules) { $1 }, user: user)
    }

    func sync(_ settings: DeltaSettings, log: Log = .silent) -> SyncDelta {
        var sync = SyncDelta(settings, app: Self.app, layout: layout, log: log)
        sync.pace = 0.05
        return sync
    }

    @discardableResult
    func run(
        _ settings: DeltaSettings, protecting shared: [String] = [], owner: (UInt32, UInt32)? = nil, log: Log = .silent,
        stop: StopFlag = .bounded()
    ) throws -> RsyncPlan {
        try sync(settings, log: log).run(
            into: release, protecting: shared, owner: owner.map { (owner: $0.0, group: $0.1) }, stop: stop,
            progress: { _ in })
    }

    /// Names, modes, sizes, times and link targets of everything below.
    func listing(_ path: String) throws -> String {
        String(
            decoding: try Program.check([
                "sh", "-c", "cd \"$1\" && find . -mindepth 1 -printf '%P %M %U:%G %s %T@ %l\\n' | sort", "sh", path,
            ]), as: UTF8.self)
    }

    func text(_ relative: String) throws -> String { try FileReading.text(scratch(relative), limit: 1 << 20) }

    /// rsync processes whose arguments name this bench's folder, but for its daemons.
    func processes() -> [Int32] {
        ((try? Files.names(in: "/proc")) ?? []).compactMap { name in
            guard let pid = Int32(name), let line = try? FileReading.text("/proc/\(name)/cmdline", limit: 1 << 20),
                line.contains(release), line.hasPrefix("rsync") || line.hasPrefix("/usr/bin/rsync"),
                (try? FileReading.text("/proc/\(name)/stat", limit: 4096))?.contains(") Z ") == false
            else { return nil }
            return pid
        }
    }

    /// Runs in a thread, so that the test can act meanwhile.
    func inBackground<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) -> () throws -> Value {
        let outcome = Outcome<Value>()
        Thread.detachNewThread {
            let result = Result { try work() }
            outcome.box.withLock { $0 = result }
            outcome.done.signal()
        }
        return {
            guard outcome.done.wait(timeout: .now() + 120) == .success, let result = outcome.box.withLock({ $0 }) else {
                throw StillRunning()
            }
            return try result.get()
        }
    }

    private struct StillRunning: Error {}

    private final class Outcome<Value: Sendable>: Sendable {
        let box = Mutex<Result<Value, any Error>?>(nil)
        let done = DispatchSemaphore(value: 0)
    }
}

func failure(_ work: () throws -> Void) -> RsyncFailure? {
    do {
        try work()
        return nil
    } catch {
        return error as? RsyncFailure
    }
}

@Suite struct SyncDeltaTests {
    let bench: DeltaBench

    init() throws { bench = try DeltaBench() }

    private func settings(_ port: Int, module: String = "site") -> DeltaSettings {
        DeltaSettings(from: "rsync://127.0.0.1:\(port)/\(module)/", connectTimeout: .seconds(1))
    }

    // MARK: what it does

    @Test func bringsWhatChangedAndNothingElse() throws {
        let daemon = try bench.daemon()
        try bench.scratch.write("source/index.php", "<?php echo 3; // longer\n")
        try bench.scratch.write("source/new/deep/file", "new", mode: 0o6775)
        try bench.scratch.write("source/locked", "locked", mode: 0o044)
        try Files.symlink(target: "deep/file", at: bench.scratch("source/new/link"))
        try bench.scratch.write("source/secret.php", "x", mode: 0o600)
        try bench.scratch.write("source/var/uploads/from-source", "no")
        try bench.scratch.write("source/error.log", "no")
        try Program.check(["chmod", "640", bench.scratch("source/lib/b.php")])
        try bench.scratch.write("release/stale", "gone")
        try bench.scratch.write("release/var/uploads/of-visitors", "stays")
        var settings = settings(daemon.port)
        settings.exclude = ["*.log"]

        let before = try bench.listing(bench.release)
        let planned = try bench.sync(settings).plan(into: bench.release, protecting: ["var/uploads"], stop: .bounded())
        #expect(try bench.listing(bench.release) == before, "a plan changes nothing")
        #expect(planned.created == 6)
        #expect((planned.changed, planned.deleted, planned.metadataOnly) == (1, 1, 1))
        #expect(planned.totalFiles == 14)
        #expect(planned.entries.contains(RsyncChange(kind: .deleted, path: "stale")))
        #expect(planned.entries.contains(RsyncChange(kind: .metadata, path: "lib/b.php")))

        let shared = ProgressBox()
        let done = try bench.sync(settings).run(
            into: bench.release, protecting: ["var/uploads"], owner: nil, stop: .bounded(), progress: { shared.set($0) }
        )
        #expect(Set(done.entries.map(\.path)) == Set(planned.entries.map(\.path)))
        #expect(done.bytes == planned.bytes)
        let last = try #require(shared.value)
        #expect(last.bytes == planned.bytes)
        #expect(last.totalBytes == planned.bytes)
        #expect(last.items == last.totalItems)

        #expect(try bench.text("release/index.php") == "<?php echo 3; // longer\n")
        #expect(try Files.status(bench.release + "/new/deep/file")?.mode == 0o775)
        #expect(try Files.status(bench.release + "/locked")?.mode == 0o644)
        #expect(try Files.status(bench.release + "/secret.php")?.mode == 0o600)
        #expect(try Files.status(bench.release + "/lib/b.php")?.mode == 0o640)
        #expect(Files.linkTarget(bench.release + "/new/link") == "deep/file")
        #expect(try Files.names(in: bench.release + "/var/uploads") == ["of-visitors"])
        #expect(
            try Files.names(in: bench.release) == ["index.php", "lib", "locked", "new", "pages", "secret.php", "var"])
        #expect(try bench.run(settings, protecting: ["var/uploads"]).isEmpty)
        #expect(try Files.names(in: bench.layout.runtime) == [])
    }

    @Test func fromAFolderOfThisMachine() throws {
        try bench.scratch.write("source/new", "n")
        let done = try bench.run(DeltaSettings(from: "file://" + bench.source))
        #expect((done.created, done.changed, done.deleted) == (1, 0, 0))
        #expect(try bench.text("release/new") == "n")
    }

    @Test(.enabled(if: Host.isSuperuser)) func ownerIsTheOneAskedFor() throws {
        try bench.scratch.write("source/new", "n")
        try Files.changeOwner(bench.scratch("source/new"), owner: 12, group: 13)
        try bench.run(DeltaSettings(from: bench.source), owner: (0, 33))
        for name in ["new", "lib/a.php", "lib"] {
            let status = try #require(try Files.status(bench.release + "/" + name))
            #expect((status.owner, status.group) == (0, 33))
        }
    }

    @Test func theReleaseBeforeKeepsModesTimesAndBytes() throws {
        let old = bench.scratch("old")
        try Program.check(["cp", "-al", bench.release + "/.", old])
        let before = try bench.listing(old)
        try Program.check(["chmod", "600", bench.scratch("source/lib/a.php")])
        try Program.check(["touch", "-d", "2031-01-01", bench.scratch("source/lib/b.php")])
        try bench.scratch.write("source/index.php", "other")
        try Program.check(["rm", bench.scratch("source/pages/1.html")])
        let done = try bench.run(DeltaSettings(from: bench.source))
        #expect((done.changed, done.deleted, done.metadataOnly) == (2, 1, 1))
        #expect(try bench.listing(old) == before)
        #expect(try Files.status(bench.release + "/lib/a.php")?.mode == 0o600)
        #expect(try FileReading.text(old + "/index.php", limit: 100) == "<?php echo 2;\n")
        // What did not change is shared still.
        #expect(try Files.status(bench.release + "/pages/2.html")?.links == 2)
    }

    @Test(.enabled(if: Host.isSuperuser)) func theReleaseBeforeKeepsItsOwner() throws {
        let old = bench.scratch("old")
        try Program.check(["cp", "-al", bench.release + "/.", old])
        let before = try bench.listing(old)
        try bench.run(DeltaSettings(from: bench.source), owner: (0, 33))
        #expect(try bench.listing(old) == before)
        #expect(try Files.status(bench.release + "/lib/a.php")?.group == 33)
    }

    // MARK: sources that must not empty a site

    @Test func markerMissing() throws {
        let daemon = try bench.daemon()
        try Program.check(["rm", bench.scratch("source/.amorce-site")])
        let before = try bench.listing(bench.release)
        #expect(failure { try bench.run(settings(daemon.port)) } == .markerMissing(".amorce-site"))
        try Program.check(["sh", "-c", "rm -rf \"$1\"/*", "sh", bench.source])
        #expect(failure { try bench.run(settings(daemon.port)) } == .markerMissing(".amorce-site"))
        #expect(try bench.listing(bench.release) == before)
    }

    @Test(arguments: ["shop\n", "", "boutique2", "\nboutique\n"])
    func markerOfAnotherSite(_ text: String) throws {
        try bench.scratch.write("source/.amorce-site", text)
        let before = try bench.listing(bench.release)
        guard case .markerForeign(".amorce-site", _) = failure({ try bench.run(DeltaSettings(from: bench.source)) })
        else {
            Issue.record("not refused")
            return
        }
        #expect(try bench.listing(bench.release) == before)
    }

    @Test func markerThatIsNoFile() throws {
        try Program.check(["rm", bench.scratch("source/.amorce-site")])
        try Files.symlink(target: "index.php", at: bench.scratch("source/.amorce-site"))
        #expect(failure { try bench.run(DeltaSettings(from: bench.source)) } == .markerMissing(".amorce-site"))
    }

    @Test func markerMayHaveMoreLinesAndBlanks() throws {
        try bench.scratch.write("source/.amorce-site", "  boutique \r\nproduction\n")
        #expect(throws: Never.self) { try bench.run(DeltaSettings(from: bench.source)) }
    }

    @Test func nothingButTheMarker() throws {
        let daemon = try bench.daemon()
        try Program.check(["sh", "-c", "rm -rf \"$1\"/*", "sh", bench.source])
        let before = try bench.listing(bench.release)
        #expect(failure { try bench.run(settings(daemon.port)) } == .emptySource)
        #expect(try bench.listing(bench.release) == before)
    }

    @Test func mostFilesLost() throws {
        let daemon = try bench.daemon()
        try Program.check(["rm", "-r", bench.scratch("source/pages")])
        let before = try bench.listing(bench.release)
        var settings = settings(daemon.port)
        // 12 entries: 7 pages, 3 files, 2 folders.
        #expect(failure { try bench.run(settings) } == .deletionLimit(would: 8, of: 12, allowed: 2))
        #expect(try bench.listing(bench.release) == before)
        let plan = try bench.sync(settings).plan(into: bench.release, protecting: [], stop: .bounded())
        #expect(plan.exceedsLimit)
        settings.refuseDeletingMoreThan = 0.7
        #expect(try bench.run(settings).deleted == 8)
    }

    @Test func filesLostBetweenThePlanAndTheTransfer() throws {
        let daemon = try bench.daemon()
        try bench.scratch.write("source/new", "n")
        let proxy = try FaultProxy(bench.scratch, before: daemon.port, "pause", afterBytes: 0, onConnections: [3])
        let settings = settings(proxy.port)
        let bench = bench
        let result = bench.inBackground { try bench.run(settings) }
        #expect(proxy.waitForPause())
        try Program.check(["rm", "-r", bench.scratch("source/pages")])
        proxy.goOn()
        let found = failure { _ = try result() }
        #expect(found == .incomplete(.deletionLimit(would: nil, of: 12, allowed: 2)))
        let left = try Files.names(in: bench.release + "/pages").count
        #expect(left >= 5)
    }

    // MARK: an orchestrator that is absent, busy or broken

    @Test func daemonsThatSayNo() throws {
        let secrets = try bench.scratch.write("secrets", "front:MADE-UP-SECRET\n", mode: 0o600)
        let daemon = try bench.daemon(modules: [
            "locked": "path = \(bench.source)\nauth users = front\nsecrets file = \(secrets)",
            "absent": "path = \(bench.source)/none", "denied": "path = \(bench.source)\nhosts deny = *",
        ])
        let before = try bench.listing(bench.release)
        func outcome(_ module: String, user: String? = nil, password: String? = nil) -> RsyncFailure? {
            var settings = settings(daemon.port, module: module)
            settings.user = user
            settings.password = password.map { Secret($0) }
            return failure { try bench.run(settings) }
        }
        guard case .authentication(let text) = outcome("locked") else { return #expect(Bool(false), "no password") }
        #expect(text.contains("@ERROR: auth failed on module locked"))
        guard case .authentication = outcome("locked", user: "front", password: "MADE-UP-SECRET-2"),
            case .unknownModule = outcome("nothing"), case .missingPath = outcome("absent"),
            case .missingPath = outcome("site/none/at/all"), case .accessDenied = outcome("denied")
        else { return #expect(Bool(false), "not told apart") }
        #expect(try bench.listing(bench.release) == before)
        #expect(outcome("locked", user: "front", password: "MADE-UP-SECRET") == nil)
    }

    @Test func nobodyThere() throws {
        let before = try bench.listing(bench.release)
        let found = failure { try bench.run(settings(LoopbackServer.freePort())) }
        #expect(found?.isUnreachable == true)
        guard case .unreachable = found else { return #expect(Bool(false), "\(String(describing: found))") }
        #expect(try bench.listing(bench.release) == before)
        guard case .unreachable = failure({ try bench.run(DeltaSettings(from: "rsync://no-such-host.invalid/site/")) })
        else {
            return #expect(Bool(false), "a name that does not exist")
        }
        guard case .missingPath = failure({ try bench.run(DeltaSettings(from: "/no/such/folder")) }) else {
            return #expect(Bool(false), "a folder that does not exist")
        }
    }

    /// A listener whose queue is full: the kernel answers no connection request.
    @Test func blackHole() throws {
        let listener = try pythonListener(
            """
            import socket, sys, time
            s = socket.socket(); s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(0)
            fill = []
            for _ in range(4):
                c = socket.socket(); c.setblocking(False); c.connect_ex(("127.0.0.1", int(sys.argv[1]))); fill.append(c)
            print("up", flush=True)
            time.sleep(3600)
            """)
        let found = failure { try bench.run(settings(listener.port)) }
        guard case .unreachable = found else { return #expect(Bool(false), "\(String(describing: found))") }
    }

    @Test(arguments: [
        ("c.sendall(b'HTTP/1.1 400 Bad Request\\r\\n\\r\\n'); c.close()", "wrong"),
        ("c.sendall(b'220 mail ESMTP\\r\\n'); c.close()", "wrong"), ("c.close()", "lost"),
        ("keep.append(c)", "stalled"),
    ])
    func anotherServer(_ behaviour: String, _ outcome: String) throws {
        let listener = try pythonListener(
            """
            import socket, sys
            s = socket.socket(); s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(16)
            print("up", flush=True)
            keep = []
            while True:
                c, _ = s.accept()
                \(behaviour)
            """)
        var settings = settings(listener.port)
        settings.stallAfter = .seconds(1)
        let found = failure { try bench.run(settings) }
        switch (found, outcome) {
        case (.wrongServer, "wrong"), (.connectionLost, "lost"), (.stalled, "stalled"): break
        default: Issue.record("\(String(describing: found))")
        }
    }

    @Test func waitsForAFullServer() throws {
        let lock = bench.scratch("lock")
        let daemon = try bench.daemon("max connections = 1\nlock file = \(lock)")
        let holder = try pythonListener(
            """
            import socket, sys, time
            c = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
            c.recv(100); c.sendall(b"@RSYNCD: 31.0 md5 md4\\nsite\\n")
            while b"OK" not in c.recv(100): pass
            print("up", flush=True)
            time.sleep(3600)
            """, extra: [String(daemon.port)])
        let messages = LogRecorder()
        let bench = bench
        let settings = settings(daemon.port)
        try bench.scratch.write("source/new", "n")
        let result = bench.inBackground { try bench.run(settings, log: messages.log) }
        #expect(messages.wait(for: "max connections (1) reached"))
        holder.stop()
        #expect(try result().created == 1)
    }

    @Test func stallInTheMiddleIsEndedAndTriedAgain() throws {
        let daemon = try bench.daemon()
        try bench.scratch.write("source/large", seededBytes(8 << 20))
        let proxy = try FaultProxy(bench.scratch, before: daemon.port, "stop", afterBytes: 500_000, onConnections: [3])
        var settings = settings(proxy.port)
        settings.stallAfter = .seconds(2)
        let messages = LogRecorder()
        let done = try bench.run(settings, log: messages.log)
        #expect(messages.text.contains("nothing arrived from the orchestrator"))
        #expect(done.created == 1)
        try Program.check(["cmp", bench.scratch("source/large"), bench.scratch("release/large")])
        #expect(bench.processes().isEmpty)
        #expect(try Files.names(in: bench.release) == ["index.php", "large", "lib", "pages"])
    }

    @Test func stallEveryTime() throws {
        let daemon = try bench.daemon()
        try bench.scratch.write("source/large", seededBytes(4 << 20))
        let proxy = try FaultProxy(
            bench.scratch, before: daemon.port, "stop", afterBytes: 300_000, onConnections: [3, 6, 9, 12])
        var settings = settings(proxy.port)
        settings.stallAfter = .seconds(1)
        let found = failure { try bench.run(settings) }
        #expect(found == .incomplete(.stalled(.seconds(1))))
        #expect(found?.isUnreachable == false)
        #expect(bench.processes().isEmpty)
    }

    @Test(arguments: [0, 20, 200, 100_000])
    func brokenConnectionIsTriedAgain(_ bytes: Int) throws {
        let daemon = try bench.daemon()
        try bench.scratch.write("source/large", seededBytes(2 << 20))
        let proxy = try FaultProxy(bench.scratch, before: daemon.port, "close", afterBytes: bytes, onConnections: [3])
        #expect(try bench.run(settings(proxy.port)).created == 1)
        try Program.check(["cmp", bench.scratch("source/large"), bench.scratch("release/large")])
        #expect(try Files.names(in: bench.release) == ["index.php", "large", "lib", "pages"])
    }

    // MARK: files that cannot be brought

    @Test(.enabled(if: Host.isSuperuser)) func unreadableFile() throws {
        let daemon = try bench.daemon(user: "nobody")
        try bench.scratch.write("source/closed", "x", mode: 0o600)
        try bench.scratch.write("source/open", "x")
        let messages = LogRecorder()
        guard
            case .incomplete(.partial(let text)) = failure({ try bench.run(settings(daemon.port), log: messages.log) })
        else {
            return #expect(Bool(false), "not refused")
        }
        #expect(text.contains("closed"))
        #expect(messages.lines.count { $0.contains("trying again") } == 1)
    }

    @Test(.enabled(if: Host.isSuperuser)) func unreadableFolderDeletesNothing() throws {
        let daemon = try bench.daemon(user: "nobody")
        try Program.check(["chmod", "700", bench.scratch("source/lib")])
        let before = try bench.listing(bench.release)
        guard case .partial = failure({ try bench.run(settings(daemon.port)) }) else {
            return #expect(Bool(false), "not refused")
        }
        #expect(try bench.listing(bench.release) == before)
    }

    @Test func fileThatVanishesMeanwhile() throws {
        let daemon = try bench.daemon()
        try bench.scratch.write("source/a-large", seededBytes(32 << 20))
        try bench.scratch.write("source/z-last", "here for a moment")
        let proxy = try FaultProxy(bench.scratch, before: daemon.port, "pause", afterBytes: 300_000, onConnections: [3])
        let messages = LogRecorder()
        let bench = bench
        let settings = settings(proxy.port)
        let result = bench.inBackground { try bench.run(settings, log: messages.log) }
        #expect(proxy.waitForPause())
        try Files.remove(bench.scratch("source/z-last"))
        proxy.goOn()
        _ = try result()
        #expect(messages.text.contains("vanished"))
        #expect(try Files.names(in: bench.release) == ["a-large", "index.php", "lib", "pages"])
        try Program.check(["cmp", bench.scratch("source/a-large"), bench.scratch("release/a-large")])
    }

    @Test(.enabled(if: Host.isSuperuser)) func fullDisk() throws {
        let small = bench.scratch("small")
        try Files.makeNewDirectory(small, mode: 0o755)
        try Program.check(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small])
        defer { _ = try? Program.run(["umount", small]) }
        try Files.makeNewDirectory(small + "/release", mode: 0o755)
        try bench.scratch.write("source/large", seededBytes(3 << 20))
        let found = failure {
            _ = try bench.sync(DeltaSettings(from: bench.source)).run(
                into: small + "/release", protecting: [], owner: nil, stop: .bounded(), progress: { _ in })
        }
        guard case .incomplete(.diskFull) = found else { return #expect(Bool(false), "\(String(describing: found))") }
        #expect(found?.status == .noRoom)
    }

    // MARK: hostile sources

    @Test func nothingOutsideIsTouched() throws {
        try bench.scratch.write("outside/canary", "untouched")
        let outside = bench.scratch("outside")
        let before = try bench.listing(outside)
        // Links that lead out, absolute and relative, and names that a shell or a parser might trip over.
        try Files.symlink(target: outside, at: bench.scratch("source/absolute"))
        try Files.symlink(target: "../outside", at: bench.scratch("source/relative"))
        try Files.symlink(target: "../../../../../../etc/passwd", at: bench.scratch("source/lib/passwd"))
        for name in [
            "-rf", "--delete", "new\nline", "amorce:*deleting  :0:x", " blank ", "\\#012", "$(touch x)", "a\u{1b}[31m",
        ] {
            try bench.scratch.write("source/odd/\(name)", "odd")
        }
        try bench.scratch.write("source/taken/canary", "from the source")
        // In the release the same name is a symlink that leads out, as from a bad backup.
        try Files.symlink(target: outside, at: bench.scratch("release/taken"))
        // A file of the release becomes a folder, a folder a symlink.
        try Program.check(["rm", "-r", bench.scratch("source/pages"), bench.scratch("source/index.php")])
        try Files.symlink(target: "lib", at: bench.scratch("source/pages"))
        try bench.scratch.write("source/index.php/deep", "folder now")

        let daemon = try bench.daemon()
        let messages = LogRecorder()
        var settings = settings(daemon.port)
        settings.refuseDeletingMoreThan = 1
        let done = try bench.run(settings, log: messages.log)
        #expect(try bench.listing(outside) == before)
        #expect(try bench.text("outside/canary") == "untouched")
        for name in ["absolute", "relative", "lib/passwd"] { #expect(!Files.exists(bench.release + "/" + name)) }
        #expect(messages.text.contains("3 symlinks in the source lead out"))
        #expect(try Files.names(in: bench.release + "/odd") == Files.names(in: bench.source + "/odd"))
        #expect(try Files.status(bench.release + "/taken")?.kind == .directory)
        #expect(Files.linkTarget(bench.release + "/pages") == "lib")
        #expect(try bench.text("release/index.php/deep") == "folder now")
        #expect(done.entries.contains(RsyncChange(kind: .created, path: "odd/new\\nline")))
        #expect(done.entries.allSatisfy { !$0.path.unicodeScalars.contains { $0.value < 0x20 } })
    }

    @Test func folderThatIsASymlink() throws {
        try Files.rename(bench.release, to: bench.scratch("real"))
        try Files.symlink(target: "real", at: bench.release)
        let before = try bench.listing(bench.scratch("real"))
        try bench.scratch.write("source/new", "n")
        for path in [bench.release, bench.release + "/", bench.scratch("absent")] {
            let found = failure {
                _ = try bench.sync(DeltaSettings(from: bench.source)).run(
                    into: path, protecting: [], owner: nil, stop: .bounded(), progress: { _ in })
            }
            guard case .badDirectory = found else { return #expect(Bool(false), "\(String(describing: found))") }
        }
        #expect(try bench.listing(bench.scratch("real")) == before)
    }

    @Test(arguments: ["../x", "/etc", "", "a\nb"])
    func sharedPathsThatLeadOut(_ path: String) {
        #expect(
            failure { try bench.run(DeltaSettings(from: bench.source), protecting: [path]) } == .badSetting(.sharedPath)
        )
    }

    // MARK: secrets and processes

    @Test func passwordIsInNoArgumentAndNoEnvironment() throws {
        let secrets = try bench.scratch.write("secrets", "front:MADE-UP-SECRET-\(bench.scratch.path)\n", mode: 0o600)
        let secret = "MADE-UP-SECRET-\(bench.scratch.path)"
        let daemon = try bench.daemon("auth users = front\nsecrets file = \(secrets)")
        try bench.scratch.write("source/large", seededBytes(2 << 20))
        let proxy = try FaultProxy(bench.scratch, before: daemon.port, "pause", afterBytes: 100_000, onConnections: [3])
        var settings = settings(proxy.port)
        settings.user = "front"
        settings.password = Secret(secret)
        let messages = LogRecorder()
        let bench = bench
        let final = settings
        let result = bench.inBackground { try bench.run(final, log: messages.log) }
        #expect(proxy.waitForPause())

        let processes = bench.processes()
        #expect(!processes.isEmpty)
        for name in try Files.names(in: "/proc") where Int(name) != nil {
            for file in ["cmdline", "environ"] {
                let text = (try? FileReading.text("/proc/\(name)/\(file)", limit: 4 << 20)) ?? ""
                #expect(!text.contains(secret), "\(file) of \(name)")
            }
        }
        let work = try #require(try Files.names(in: bench.layout.runtime).first)
        let folder = bench.layout.runtime + "/" + work
        #expect(try Files.status(folder)?.mode == 0o700)
        #expect(try Files.status(folder + "/password")?.mode == 0o600)
        proxy.goOn()
        #expect(try result().created == 1)
        #expect(try Files.names(in: bench.layout.runtime) == [])
        #expect(!messages.text.contains("MADE-UP-SECRET"))
    }

    @Test func passwordOfAKilledRunIsRemoved() throws {
        // No process has this number: it is above the kernel's limit.
        try bench.scratch.write("root/run/amorce/rsync-4194999-abc/password", "MADE-UP-SECRET", mode: 0o600)
        try bench.scratch.write(
            "root/run/amorce/rsync-\(Host.processIdentifier)-abc/password", "MADE-UP-SECRET", mode: 0o600)
        try bench.scratch.write("root/run/amorce/ready", "{}")
        try bench.run(DeltaSettings(from: bench.source))
        #expect(try Files.names(in: bench.layout.runtime) == ["ready", "rsync-\(Host.processIdentifier)-abc"])
    }

    @Test func passwordFileThatRsyncDoesNotTake() throws {
        let secrets = try bench.scratch.write("secrets", "front:MADE-UP-SECRET\n", mode: 0o600)
        let daemon = try bench.daemon("auth users = front\nsecrets file = \(secrets)")
        let command = try RsyncCommand(
            settings(daemon.port).with { $0.user = "front" }, version: RsyncVersion([3, 5, 0]))
        let open = try bench.scratch.write("open", "MADE-UP-SECRET\n", mode: 0o644)
        for file in [open, bench.scratch("absent")] {
            let result = try Program.run(command.fetchMarker(into: bench.release, passwordFile: file))
            guard case .badPasswordFile = RsyncFailure(result, stallAfter: .seconds(1)) else {
                return #expect(Bool(false), "\(result.explanation)")
            }
        }
    }

    @Test func stopLeavesNoProcess() throws {
        let daemon = try bench.daemon()
        try bench.scratch.write("source/large", seededBytes(8 << 20))
        let proxy = try FaultProxy(bench.scratch, before: daemon.port, "pause", afterBytes: 300_000, onConnections: [3])
        let stop = StopFlag.bounded()
        let bench = bench
        let settings = settings(proxy.port)
        let result = bench.inBackground { try bench.run(settings, stop: stop) }
        #expect(proxy.waitForPause())
        #expect(!bench.processes().isEmpty)
        stop.raise(signal: SIGTERM)
        #expect(throws: StopReason.signal(SIGTERM)) { _ = try result() }
        #expect(bench.processes().isEmpty)
        #expect(try Files.names(in: bench.layout.runtime) == [])
    }

    @Test func killedRsyncLeavesNoProcess() throws {
        let daemon = try bench.daemon()
        try bench.scratch.write("source/large", seededBytes(8 << 20))
        let proxy = try FaultProxy(bench.scratch, before: daemon.port, "pause", afterBytes: 300_000, onConnections: [3])
        let bench = bench
        let settings = settings(proxy.port)
        let result = bench.inBackground { try bench.run(settings) }
        #expect(proxy.waitForPause())
        let all = bench.processes()
        #expect(all.count >= 2, "a generator and a receiver")
        // The lowest number is the one that was started first.
        kill(try #require(all.min()), SIGKILL)
        #expect(failure { _ = try result() } == .incomplete(.killed(SIGKILL)))
        #expect(bench.processes().isEmpty)
    }

    // MARK: the program

    @Test func rsyncIsMissing() throws {
        var sync = bench.sync(DeltaSettings(from: bench.source))
        sync.searchPath = bench.scratch("nothing")
        let missing = sync
        guard
            case .notInstalled(let text) = failure({
                _ = try missing.plan(into: bench.release, protecting: [], stop: .bounded())
            })
        else { return #expect(Bool(false), "not noticed") }
        #expect(text.contains("rsync is not installed"))
    }

    @Test(arguments: [
        ("rsync  version 3.0.9  protocol version 30", true, false), ("openrsync: protocol version 29", true, false),
        ("rsync  version 3.2.7  protocol version 31", false, true),
        ("rsync  version 3.4.3  protocol version 32", false, false),
    ])
    func otherVersions(_ line: String, _ isRefused: Bool, _ isWarned: Bool) throws {
        try bench.scratch.write(
            "bin/rsync",
            """
            #!/bin/sh
            PATH=/usr/bin:/bin
            [ "$1" = --version ] && echo '\(line)' && exit
            exec /usr/bin/rsync "$@"

            """,
            mode: 0o755)
        let messages = LogRecorder()
        var sync = bench.sync(DeltaSettings(from: bench.source), log: messages.log)
        sync.searchPath = bench.scratch("bin")
        let shimmed = sync
        let found = failure { _ = try shimmed.plan(into: bench.release, protecting: [], stop: .bounded()) }
        if isRefused {
            #expect(found == .tooOld(line))
        } else {
            #expect(found == nil)
        }
        #expect(messages.text.contains("older than 3.4.3") == isWarned)
    }
}

/// ssh against a real sshd with keys and a configuration of the test's own.
@Suite(.enabled(if: Host.isSuperuser)) struct SyncDeltaSSHTests {
    let bench: DeltaBench
    let server: LoopbackServer

    init() throws {
        bench = try DeltaBench()
        for name in ["host", "host2", "key", "stranger"] {
            try Program.check(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", bench.scratch(name)])
        }
        let key = try bench.text("key.pub")
        try bench.scratch.write("authorized", key, mode: 0o600)
        try Files.makeDirectories("/run/sshd")
        let configuration = try bench.scratch.write(
            "sshd.conf",
            """
            ListenAddress 127.0.0.1
            HostKey \(bench.scratch("host"))
            AuthorizedKeysFile \(bench.scratch("authorized"))
            StrictModes no
            UsePAM no
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            PermitRootLogin yes
            PidFile none

            """)
        server = try LoopbackServer(["/usr/sbin/sshd", "-D", "-e", "-f", configuration, "-p", "{port}"])
        try known("known", "host")
        try known("wrong", "host2")
        try bench.scratch.write("source/new file", "n")
    }

    private func known(_ file: String, _ key: String) throws {
        let words = try bench.text(key + ".pub").split(separator: " ")
        try bench.scratch.write(file, "[127.0.0.1]:\(server.port) \(words[0]) \(words[1])\n")
    }

    private func settings(_ path: String? = nil) -> DeltaSettings {
        DeltaSettings(
            from: "ssh://root@127.0.0.1:\(server.port)\(path ?? bench.source)/", sshKey: bench.scratch("key"),
            knownHosts: bench.scratch("known"))
    }

    @Test func bringsTheDelta() throws {
        #expect(try bench.run(settings()).created == 1)
        #expect(try bench.text("release/new file") == "n")
    }

    @Test func pathsThatAShellWouldTakeApart() throws {
        let odd = "/a b $(touch canary); 'x\" & #"
        try Program.check(["cp", "-a", bench.source, bench.scratch.path + odd])
        #expect(try bench.run(settings(bench.scratch.path + odd)).created == 1)
    }

    @Test func refusals() throws {
        func outcome(_ change: (inout DeltaSettings) -> Void) -> RsyncFailure? {
            var settings = settings()
            change(&settings)
            return failure { try bench.run(settings) }
        }
        let before = try bench.listing(bench.release)
        guard case .authentication = outcome({ $0.sshKey = bench.scratch("stranger") }) else {
            return #expect(Bool(false), "a key that is not known there")
        }
        guard case .hostKey = outcome({ $0.knownHosts = bench.scratch("wrong") }) else {
            return #expect(Bool(false), "another host key")
        }
        try bench.scratch.write("empty", "")
        guard case .hostKey = outcome({ $0.knownHosts = bench.scratch("empty") }) else {
            return #expect(Bool(false), "no host key")
        }
        guard case .badKeyFile = outcome({ $0.sshKey = bench.scratch("none") }),
            case .badKeyFile = outcome({ $0.knownHosts = bench.scratch("none") })
        else { return #expect(Bool(false), "files that are not there") }
        guard case .markerMissing = outcome({ $0.from += "lib/" }) else {
            return #expect(Bool(false), "no marker")
        }
        guard case .missingPath = outcome({ $0.from += "none/" }) else {
            return #expect(Bool(false), "no such folder")
        }
        guard case .unreachable = outcome({ $0.from = "ssh://root@127.0.0.1:1\(bench.source)/" }) else {
            return #expect(Bool(false), "nobody there")
        }
        try Program.check(["chmod", "644", bench.scratch("key")])
        guard case .badKeyFile = outcome({ _ in }) else { return #expect(Bool(false), "an open key") }
        #expect(try bench.listing(bench.release) == before)
    }

    @Test func stallIsEndedAndSSHWithIt() throws {
        try bench.scratch.write("source/large", seededBytes(8 << 20))
        let proxy = try FaultProxy(bench.scratch, before: server.port, "stop", afterBytes: 600_000, onConnections: [3])
        let words = try bench.text("host.pub").split(separator: " ")
        try bench.scratch.write("known", "[127.0.0.1]:\(proxy.port) \(words[0]) \(words[1])\n")
        var settings = settings()
        settings.from = "ssh://root@127.0.0.1:\(proxy.port)\(bench.source)/"
        settings.stallAfter = .seconds(2)
        let messages = LogRecorder()
        #expect(try bench.run(settings, log: messages.log).created == 2)
        #expect(messages.text.contains("nothing arrived"))
        try Program.check(["cmp", bench.scratch("source/large"), bench.scratch("release/large")])
        #expect(bench.processes().isEmpty)
        #expect(try !Program.run(["pgrep", "-f", "^ssh .*-i \(bench.scratch("key"))"]).isSuccess)
    }
}

// MARK: parts of the tests

extension DeltaSettings {
    fileprivate func with(_ change: (inout DeltaSettings) -> Void) -> DeltaSettings {
        var copy = self
        change(&copy)
        return copy
    }
}

final class ProgressBox: Sendable {
    private let stored = Mutex<HostSystem.Progress?>(nil)
    func set(_ progress: HostSystem.Progress) { stored.withLock { $0 = progress } }
    var value: HostSystem.Progress? { stored.withLock { $0 } }
}

/// A Python program that says `up` once it is ready, with a free port as its first argument.
private func pythonListener(_ program: String, extra: [String] = []) throws -> LoopbackServer {
    try LoopbackServer(["python3", "-c", program, "{port}"] + extra, isReady: .output("up"))
}
