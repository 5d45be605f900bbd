# A repository with a few hundred commits; names and dates are fixed, so that every object's name is.
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org
export GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@example.org

# The history is written as a stream: a thousand programs less to start, and git does the work.
awk '
function text(c, f,    lines, s, i) {
    s = ""
    lines = 40 + (c * f) % 160
    for (i = 0; i < lines; i++)
        s = s "line " i " of file " f ((i + c) % 11 ? "" : " changed by " c) "\n"
    return s
}
BEGIN {
    for (c = 1; c <= 400; c++) {
        print "commit refs/heads/main"
        print "committer C <c@example.org> " 1700000000 + c * 60 " +0000"
        message = "commit number " c "\n"
        print "data " length(message)
        printf "%s", message
        for (k = 0; k < 5; k++) {
            f = (c * 7 + k * 13) % 97
            body = text(c, f)
            print "M 100644 inline dir" f % 9 "/file" f ".txt"
            print "data " length(body)
            printf "%s\n", body
        }
    }
}' >history
git init -q --initial-branch=main repository
cd repository
git fast-import --quiet <../history
git checkout -q main

for n in $(seq 1 15); do
    echo "by hand $n" >>"dir$((n % 9))/extra"
    git add -A
    export GIT_AUTHOR_DATE="$((1700100000 + n)) +0000" GIT_COMMITTER_DATE="$((1700100000 + n)) +0000"
    git commit -q -m "by hand $n"
done

git rev-parse HEAD
git log --stat --format='%H %s' | cksum
git log -p -10 | cksum
git log --graph --oneline -- dir3 | cksum
git blame dir1/file1.txt | cksum
git grep -c changed | cksum
git diff HEAD~200 --stat | tail -n 1
git gc --quiet --aggressive --prune=now
git fsck --full --strict 2>&1 | grep -v '^dangling' || true
git count-objects -v | grep -E '^(count|in-pack|packs|garbage)'
cd ..
git clone -q repository copy
git -C copy rev-parse HEAD
git -C copy rev-list --objects --all | sort | cksum
