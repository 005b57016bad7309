import HostSystem
import TestSupport
import Testing

@testable import BootSequence

/// The switch of code and configuration on a scratch root, without services: what is in place at every point.
@Suite struct SwitchTests {
    let scratch: ScratchDirectory
    let store: ReleaseStore
    var layout: HostLayout { store.layout }

    init() throws {
        scratch = try ScratchDirectory()
        store = ReleaseStore(layout: HostLayout(root: scratch.path), app: "boutique")
        try store.prepareFolders()
        try Files.makeDirectories(layout.runtime)
    }

    func release(_ identifier: String, _ files: [String: String], links: [String: String] = [:]) throws -> ReleaseRecord
    {
        try Files.makeDirectories(layout.release("boutique", identifier))
        var record = ReleaseRecord(
            identifier: identifier, app: "boutique", environment: "preprod", created: 0, token: "t" + identifier,
            base: nil)
        var contents: [String: [UInt8]] = [:]
        for (path, text) in files.sorted(by: { $0.key < $1.key }) {
            let bytes = Array(text.utf8)
            let digest = Digest.sha256(bytes).hex
            contents[digest] = bytes
            record.configuration.append(
                ConfigurationEntry(
                    path: path, mode: 0o640, owner: Host.userIdentifier, group: Host.groupIdentifier, digest: digest))
        }
        for (path, target) in links { record.configuration.append(ConfigurationEntry(path: path, target: target)) }
        try store.save(record, contents: contents)
        return record
    }

    var change: SwitchRelease {
        SwitchRelease(
            store: store, services: ServiceControl([], log: .silent), proof: nil, health: HealthFile(layout: layout),
            log: .silent)
    }

    func live(_ path: String) -> String? { try? FileReading.text(layout.path(path), limit: 1000) }
    func recover() throws -> String? {
        try BootSequence.recoverSwitch(layout: layout, filesOnly: true, log: .silent, stop: StopFlag())
    }

    static let first = "20260101000000"
    static let second = "20260102000000"

    @Test func codeAndConfigurationChangeTogetherAndBack() throws {
        try scratch.write("etc/image.conf", "of the image", mode: 0o600)
        let one = try release(
            Self.first, ["/etc/a.conf": "one", "/etc/image.conf": "one"], links: ["/etc/on": "a.conf"])
        try change.switchTo(one, stop: StopFlag())
        _ = try change.prove(one, stop: StopFlag())
        #expect(live("/etc/a.conf") == "one" && live("/etc/image.conf") == "one")
        #expect(Files.linkTarget(layout.path("/etc/on")) == "a.conf")
        #expect(Files.linkTarget(layout.current("boutique")) == "releases/" + Self.first)
        #expect(try Files.status(layout.path("/etc/a.conf"))?.mode == 0o640)

        // The second has one file less, one more: what the image had comes back.
        let two = try release(Self.second, ["/etc/a.conf": "two", "/etc/b/new.conf": "two"])
        try change.switchTo(two, stop: StopFlag())
        let proved = try change.prove(two, stop: StopFlag())
        #expect(proved.previous == Self.first && proved.state == .proved)
        #expect(live("/etc/a.conf") == "two" && live("/etc/b/new.conf") == "two")
        #expect(live("/etc/image.conf") == "of the image")
        #expect(!Files.exists(layout.path("/etc/on")))
        #expect(try store.live() == Self.second)
    }

    @Test func aSwitchThatWasCutOffIsTakenBackByTheFilesAlone() throws {
        let one = try release(Self.first, ["/etc/a.conf": "one"])
        try change.switchTo(one, stop: StopFlag())
        _ = try change.prove(one, stop: StopFlag())
        let two = try release(Self.second, ["/etc/a.conf": "two", "/etc/new.conf": "two"])
        try change.switchTo(two, stop: StopFlag())
        #expect(live("/etc/a.conf") == "two")
        #expect(try recover()?.contains(Self.first) == true)
        #expect(live("/etc/a.conf") == "one" && live("/etc/new.conf") == nil)
        #expect(Files.linkTarget(layout.current("boutique")) == "releases/" + Self.first)
        #expect(try store.record(Self.second)?.state == .rejected)
        #expect(try recover() == nil)
    }

    @Test func aFirstSwitchThatWasCutOffLeavesWhatTheImageHad() throws {
        try scratch.write("etc/a.conf", "of the image")
        let one = try release(Self.first, ["/etc/a.conf": "one"])
        try change.switchTo(one, stop: StopFlag())
        #expect(try recover()?.contains("no release before") == true)
        #expect(live("/etc/a.conf") == "of the image")
        #expect(!Files.exists(layout.current("boutique")))
        #expect(try store.live() == nil)
    }

    @Test func aProvedSwitchWhoseJournalStayedIsFinal() throws {
        let one = try release(Self.first, ["/etc/a.conf": "one"])
        try change.switchTo(one, stop: StopFlag())
        try store.setLive(Self.first)
        #expect(try recover() == nil)
        #expect(live("/etc/a.conf") == "one")
        #expect(try store.journal() == nil)
    }

    @Test func somethingThatIsNoFileIsNotReplaced() throws {
        try Files.makeDirectories(layout.path("/etc/a.conf"))
        let one = try release(Self.first, ["/etc/a.conf": "one", "/etc/0.conf": "one"])
        #expect(throws: SwitchRelease.NotProved.self) { try change.switchTo(one, stop: StopFlag()) }
        // Found before the first rename: nothing of it is in place.
        #expect(live("/etc/0.conf") == nil)
        #expect(try store.journal() == nil)
    }

    @Test func whatWasNeverTouchedIsNotRemovedWhenASwitchFails() throws {
        try scratch.write("etc/image.conf", "of the image")
        try Files.makeDirectories(layout.path("/etc/a.conf"))
        // Whatever the order in which they are looked at: one cannot be taken over, so none is.
        let one = try release(
            Self.first, ["/etc/a.conf": "one", "/etc/image.conf": "one", "/etc/0.conf": "one", "/etc/z.conf": "one"])
        #expect(throws: SwitchRelease.NotProved.self) { try change.switchTo(one, stop: StopFlag()) }
        #expect(live("/etc/image.conf") == "of the image")
        #expect(try Files.status(layout.path("/etc/a.conf"))?.kind == .directory)
    }

    @Test func readinessIsWithdrawnBeforeTheFirstFileChanges() throws {
        let contents = HealthFile.Contents(
            app: "boutique", environment: "preprod", release: "x", bootIdentifier: Host.bootIdentifier(layout),
            since: 0,
            degraded: nil)
        try HealthFile(layout: layout).write(contents)
        #expect(HealthFile(layout: layout).read() == contents)
        let one = try release(Self.first, [:])
        try change.switchTo(one, stop: StopFlag())
        #expect(HealthFile(layout: layout).read() == nil)
    }

    @Test func prunedIsWhatNoRollbackNeeds() throws {
        for day in 1...5 {
            let record = try release("2026010\(day)000000", [:])
            try change.switchTo(record, stop: StopFlag())
            _ = try change.prove(record, stop: StopFlag())
        }
        #expect(try store.prune(keeping: 2) == ["20260101000000", "20260102000000", "20260103000000"])
        let rollback = Rollback(store: store, environment: "preprod", instance: "", neverMention: [])
        #expect(try rollback.target(named: nil).identifier == "20260104000000")
        #expect(throws: Rollback.Impossible.self) { try rollback.target(named: "20260101000000") }
    }

    @Test func aRollbackRefusesWhatIsForeignOrForbiddenHere() throws {
        for (identifier, text) in [(Self.first, "host = prod-db"), (Self.second, "host = own-db")] {
            let record = try release(identifier, ["/etc/a.conf": text])
            try change.switchTo(record, stop: StopFlag())
            _ = try change.prove(record, stop: StopFlag())
        }
        #expect(throws: Rollback.Impossible.self) {
            try Rollback(store: store, environment: "prod", instance: "", neverMention: []).target(named: nil)
        }
        #expect(throws: Rollback.Impossible.self) {
            try Rollback(store: store, environment: "preprod", instance: "", neverMention: ["prod-db"]).target(
                named: nil)
        }
        #expect(
            try Rollback(store: store, environment: "preprod", instance: "", neverMention: ["other-db"]).target(
                named: nil
            )
            .identifier == Self.first)
    }

    @Test func whatIsHalfRemovedIsNoRelease() throws {
        let one = try release(Self.first, ["/etc/a.conf": "one"])
        try change.switchTo(one, stop: StopFlag())
        _ = try change.prove(one, stop: StopFlag())
        let two = try release(Self.second, [:])
        try change.switchTo(two, stop: StopFlag())
        _ = try change.prove(two, stop: StopFlag())
        // As a kill right after the record's end leaves it.
        try Files.remove(layout.state + "/releases/\(Self.first)/record.json")
        #expect(try store.records().map(\.identifier) == [Self.second])
        #expect(try store.removeUnfinished() == [Self.first])
        #expect(!Files.exists(layout.release("boutique", Self.first)))
    }

    @Test func anotherApplicationsRecordsStay() throws {
        let one = try release(Self.first, [:])
        _ = try ReleaseStore(layout: layout, app: "other").removeUnfinished()
        #expect(try store.record(Self.first) == one)
    }
}
