internal import Backups
internal import CloudPlatform
internal import ConfigTemplates
internal import HostSystem

/// What an error of a lower room means to the person who runs amorce: the exit code, what to do next, and whether the same run
/// may succeed later. Rooms below know what happened; only here is it known what it means for a front.
protocol ExplainedError: Error, CustomStringConvertible {
    var exitStatus: ExitStatus { get }
    var advice: String? { get }
    var retryCanHelp: Bool { get }
}

extension ExplainedError {
    var exitStatus: ExitStatus { .failed }
    var advice: String? { nil }
    var retryCanHelp: Bool { false }
}

extension MetadataProblem: ExplainedError {
    var exitStatus: ExitStatus {
        switch self {
        case .environment, .file, .switchedOff: .settings
        default: .unreachable
        }
    }
}

extension CredentialProblem: ExplainedError {
    var exitStatus: ExitStatus { .permission }
}

extension HTTPFailure: ExplainedError {
    var exitStatus: ExitStatus { .unreachable }
    var retryCanHelp: Bool { isWorthRetrying }
    var advice: String? {
        switch kind {
        case .nameNotFound: "check the host name in the settings, and the name servers in /etc/resolv.conf"
        case .noCertificates: "install ca-certificates, or name a bundle in AWS_CA_BUNDLE or SSL_CERT_FILE"
        case .tls(.unknownAuthority):
            "add the authority's certificate to the host's bundle, or name one in AWS_CA_BUNDLE"
        case .refused, .connectTimeout, .networkUnreachable: "check the address, the security group and the route to it"
        case .proxy: "check https_proxy and no_proxy"
        default: nil
        }
    }
}

extension StoreError: ExplainedError {
    var exitStatus: ExitStatus {
        if isPermission {
            .permission
        } else if isUnreachable {
            .unreachable
        } else if isSettings {
            .settings
        } else {
            .failed
        }
    }
    var retryCanHelp: Bool {
        switch self {
        case .unavailable, .removed, .replaced, .uploadLost, .outcomeUnknown: true
        case .unreachable(_, let failure): failure.isWorthRetrying
        default: false
        }
    }
    var advice: String? {
        switch self {
        case .accessDenied(let action, _, _, _, _): "allow \(action) to the role or user named above, on this bucket"
        case .credentialsRefused: "check the keys, or the instance's role"
        case .noSuchBucket: "check `backup.from`, and the account whose credentials these are"
        case .absent: "check `backup.from`, and that the backup job has run"
        case .unreachable(_, let failure): failure.advice
        case .outcomeUnknown: "look whether it is there, or allow s3:GetObject, so that amorce can"
        case .cannotList: "name one archive, or use a bucket"
        case .clockSkew: "set the clock: timedatectl status, chronyc tracking"
        case .redirected, .unexpectedAnswer: "see what answers at that address: a proxy or a captive portal may"
        default: nil
        }
    }
}

extension FolderStore.Refusal: ExplainedError {
    var advice: String? {
        switch self {
        case .absent: "check the path, and that its disk is mounted; a folder of backups is not made by itself"
        case .notRegular: "a folder is named with a slash at its end"
        default: nil
        }
    }
}

extension StoreLocation.Problem: ExplainedError {
    var exitStatus: ExitStatus { .usage }
}

extension RestoreError: ExplainedError {
    var exitStatus: ExitStatus { isOutOfRoom ? .noRoom : .badInput }
    var advice: String? {
        switch self {
        case .checksumMismatch, .badArchive:
            "make the backup again; amorce restore --from URL --to DIR tries it without a boot"
        case .noRoom: "free room or inodes on that file system (df -h, df -i), or lower `keep`"
        default: nil
        }
    }
}

extension StoreConflict: ExplainedError {
    var retryCanHelp: Bool { true }
    var advice: String? { "another backup began in the same second; run it again" }
}

extension CreateBackup.Vanishing: ExplainedError {
    var retryCanHelp: Bool { true }
    var advice: String? { "look what removes it, and make the backup again; the earlier ones are as they were" }
}

extension CreateBackup.Empty: ExplainedError {
    var exitStatus: ExitStatus { .badInput }
    var advice: String? { "check `--from`, the patterns, and that the folder's disk is mounted" }
}

extension ExclusionPatterns.Invalid: ExplainedError {
    var exitStatus: ExitStatus { .usage }
    var advice: String? { "patterns are written as in .gitignore" }
}

extension RetentionPolicy.Invalid: ExplainedError {
    var exitStatus: ExitStatus { .usage }
}

extension BackupWork.NoRecord: ExplainedError {
    var advice: String? { "amorce boot makes it anew; or name a folder with --from, and leave out what holds secrets" }
}

extension BackupWork.NothingLive: ExplainedError {
    var exitStatus: ExitStatus { .usage }
    var advice: String? { "name a folder with --from" }
}

extension BackupWork.PlaceInside: ExplainedError {
    var exitStatus: ExitStatus { .usage }
    var advice: String? {
        let elsewhere = "put the backups elsewhere"
        return folder.isEmpty ? elsewhere : elsewhere + ", or leave them out: --exclude /\(Printable.text(folder))/"
    }
}

extension BackupWork.NoApp: ExplainedError {
    var exitStatus: ExitStatus { .usage }
    var advice: String? { "give --app, or write the name into \(DeltaSettings.defaultMarker) in the folder" }
}

extension BackupChoiceProblem: ExplainedError {
    var advice: String? { "check that the backup job has run, and `backup.newest-within`" }
}

extension SettingsProblems: ExplainedError {
    var exitStatus: ExitStatus { .settings }
    var advice: String? { "mend what is listed; amorce settings shows where each value comes from" }
}

extension UserDataProblem: ExplainedError {
    var exitStatus: ExitStatus { .settings }
}

extension TemplateTree.UnknownSet: ExplainedError {
    var exitStatus: ExitStatus { .settings }
}

extension TemplateProblems: ExplainedError {
    var exitStatus: ExitStatus { .badInput }
}

extension RenderConfiguration.Refused: ExplainedError {
    var exitStatus: ExitStatus { .badInput }
    var advice: String? { "mend the templates or the values; amorce render --diff tries them without a boot" }
}

extension CheckConfiguration.Complaint: ExplainedError {
    var exitStatus: ExitStatus { .badInput }
    var advice: String? { "amorce render --diff shows what the templates make; nothing of it went live" }
}

extension ConfigurationSwitch.Occupied: ExplainedError {}

extension RestoreBackup.OthersOnly: ExplainedError {
    var exitStatus: ExitStatus { .settings }
    var advice: String? { "check `app`, `backup.from` and `backup.environment`" }
}

extension RestoreBackup.NotThere: ExplainedError {
    var advice: String? { "check `backup.from`, and that the backup job has run" }
}

extension BackupPlaces.NoPlace: ExplainedError {
    var exitStatus: ExitStatus { failures.first?.failure.status ?? .failed }
    var retryCanHelp: Bool { failures.contains { $0.failure.retryCanHelp } }
    var advice: String? { failures.compactMap(\.failure.advice).first }
}

extension StandaloneRestore.NotOurs: ExplainedError {
    var exitStatus: ExitStatus { .permission }
    var advice: String? { "look at it, and remove it" }
}

extension StandaloneRestore.NotEmpty: ExplainedError {
    var advice: String? { "give a new folder: a restore never writes into what is there" }
}

extension RsyncFailure: ExplainedError {
    var exitStatus: ExitStatus { status }
    var retryCanHelp: Bool { isWorthRetrying }
}

extension ProveRelease.Answer: ExplainedError {
    var advice: String? {
        switch self {
        case .wrongStatus(_, _, let got, _) where got >= 500:
            "see the error logs of the site (/var/log/apache2/, PHP-FPM's); a database that does not answer looks like this"
        case .wrongStatus(let url, _, 404, _) where url.hasSuffix("/amorce/release"):
            "another virtual host answers for that name: check its ServerName, and `probe.connect-to`"
        case .wrongStatus: "check `probe.url` and `probe.expect`"
        case .wrongRelease:
            "a service did not load the new configuration: check `services`, and which virtual host answers"
        case .missingText: "check `probe.contains`"
        case .noAnswer: "check that the web server listens where `probe.connect-to` says"
        }
    }
}

extension ServiceControl.Refused: ExplainedError {
    var advice: String? { "systemctl status \(service), and journalctl -u \(service)" }
}

extension Rollback.Impossible: ExplainedError {
    var exitStatus: ExitStatus {
        if case .unknown = self { .usage } else { .failed }
    }
    var advice: String? { "amorce status lists the releases that can be gone back to" }
}

extension ChildProcess.NotFound: ExplainedError {
    var advice: String? { "install \(program) on the image" }
}
