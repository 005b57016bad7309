public import HostSystem

/// What `amorce status` tells: the last run, what is live, and whether the front is ready.
public struct FrontStatus: Sendable, Encodable {
    public struct Release: Sendable, Encodable {
        public let identifier: String
        public let isLive: Bool
        public let created: Int64
        public let dataTime: Int64?
        public let backup: String?
        public let previous: String?
    }

    public var format = 1
    public let state: FrontState
    /// Of this boot's last run, or of an earlier boot's where this one has had none.
    public let report: RunReport?
    /// The last run began and its process is gone without a word.
    public let wasKilled: Bool
    public let isReady: Bool
    public let releases: [Release]

    /// Reads without the lock: every file is whole at any time.
    public static func read(layout: HostLayout) throws -> FrontStatus {
        let isRunning = FileLock.isHeld(path: layout.lockFile)
        let health = HealthFile(layout: layout).read()
        let report = try report(layout)
        let releases = try releases(layout)
        guard let report else {
            return FrontStatus(
                state: isRunning ? .running : .neverRun, report: nil, wasKilled: false, isReady: health != nil,
                releases: releases)
        }
        let wasKilled = report.outcome == .running && !isRunning
        let isOfThisBoot = report.bootIdentifier == Host.bootIdentifier(layout)
        let state: FrontState =
            if isRunning {
                .running
            } else if wasKilled {
                .failed
            } else if isOfThisBoot {
                report.state
            } else {
                .neverRun
            }
        return FrontStatus(
            state: state, report: report, wasKilled: wasKilled, isReady: health != nil, releases: releases)
    }

    private static func report(_ layout: HostLayout) throws -> RunReport? {
        for path in [layout.statusFile, layout.state + "/last-report.json"] {
            do {
                guard let bytes = try FileReading.bytesIfPresent(path, limit: 4 << 20) else { continue }
                return try RunRecorder.decode(RunReport.self, from: bytes)
            } catch let error as HostError where error.isPermission {
                // The state directory is root's; the status itself is everybody's.
                continue
            }
        }
        return nil
    }

    private static func releases(_ layout: HostLayout) throws -> [Release] {
        do {
            guard let app = try ReleaseStore.liveApp(layout: layout) else { return [] }
            let store = ReleaseStore(layout: layout, app: app)
            let live = try store.live()
            return try store.records().filter { $0.state == .proved }.map { record in
                Release(
                    identifier: record.identifier, isLive: record.identifier == live, created: record.created,
                    dataTime: record.dataTime, backup: record.backup?.key, previous: record.previous)
            }
        } catch let error as HostError where error.isPermission {
            return []
        }
    }
}
